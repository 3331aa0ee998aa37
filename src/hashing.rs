//! Passwords are hashed on threads of their own: each takes a core for some hundredths of a second, and 19 MiB.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use rollcall_domain::identity::Secret;
use rollcall_domain::refusal::Refusal;
use rollcall_domain::users::{self, Hashing};
use tokio::sync::Semaphore;

/// Hashes `places` passwords at a time, lets `max_waiting` wait, and refuses more.
pub(crate) struct Hashers {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
}

impl Hashers {
    pub(crate) fn new(places: usize, max_waiting: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let places = Arc::clone(&self.places);
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let _waiting = Waiting::begin(&self.waiting, self.max_waiting)?;
                let place = places.acquire_owned().await;
                place.expect("invariant: never closed")
            }
        };
        // The place is the job's: it goes on when nobody waits for it any longer.
        let done = tokio::task::spawn_blocking(move || {
            let done = job();
            drop(place);
            done
        });
        done.await.map_err(|error| Refusal::Unavailable {
            what: "password hashing",
            source: Box::new(error),
        })
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize, max: usize) -> Result<Self, Refusal> {
        let this = Self(waiting);
        match waiting.fetch_add(1, Ordering::Relaxed) < max {
            true => Ok(this),
            false => Err(Refusal::Busy),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Hashing for Hashers {
    async fn hash(&self, password: &Secret) -> Result<String, Refusal> {
        let password = password.clone();
        self.run(move || users::hash(&password)).await
    }

    async fn verify(&self, password: &Secret, hash: &str) -> Result<bool, Refusal> {
        let (password, hash) = (password.clone(), hash.to_owned());
        self.run(move || users::verify(&password, &hash)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash() {
        let hashers = Hashers::new(1, 1);
        let password = Secret::new("a good password");
        let hash = hashers.hash(&password).await.expect("hashed");
        assert!(hashers.verify(&password, &hash).await.expect("verified"));
        let other = Secret::new("another password");
        assert!(!hashers.verify(&other, &hash).await.expect("verified"));
    }

    #[tokio::test]
    async fn who_finds_too_many_waiting_is_sent_away() {
        let hashers = Arc::new(Hashers::new(1, 1));
        let (go, wait) = mpsc::channel::<()>();
        let job = Arc::clone(&hashers);
        let working = tokio::spawn(async move { job.run(move || wait.recv()).await });
        while hashers.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let job = Arc::clone(&hashers);
        let waiting = tokio::spawn(async move { job.run(|| ()).await });
        while hashers.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(hashers.run(|| ()).await, Err(Refusal::Busy)));
        go.send(()).expect("listening");
        assert!(working.await.expect("ran").is_ok());
        assert!(waiting.await.expect("ran").is_ok());
        assert!(hashers.run(|| ()).await.is_ok());
    }
}
