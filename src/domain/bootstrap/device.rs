//! The device's side: who shows the external key gets everything.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::identity::{Secret, ThingId};
use crate::refusal::Refusal;

use super::model::{Change, ChannelCopy, Config, KeptConfig};
use super::{Bootstrap, events};

/// What a device is given.
#[derive(Clone, Debug)]
pub struct Provision {
    pub thing: ThingId,
    pub thing_key: Secret,
    pub channels: Vec<ChannelCopy>,
    pub content: String,
    pub client_cert: String,
    pub client_key: Secret,
    pub ca_cert: String,
}

impl Provision {
    /// As devices read it; what is empty is left out.
    #[must_use]
    pub fn json(&self) -> Value {
        let channels: Vec<Value> = self.channels.iter().map(channel).collect();
        let mut all = json!({
            "thing_id": self.thing.to_string(),
            "thing_key": self.thing_key.expose(),
            "channels": channels,
        });
        for (name, value) in [
            ("content", &*self.content),
            ("client_cert", &*self.client_cert),
            ("client_key", self.client_key.expose()),
            ("ca_cert", &*self.ca_cert),
        ] {
            if !value.is_empty() {
                all[name] = value.into();
            }
        }
        all
    }
}

fn channel(copy: &ChannelCopy) -> Value {
    let mut all = json!({ "id": copy.id.to_string(), "metadata": copy.metadata });
    if !copy.name.is_empty() {
        all["name"] = (*copy.name).into();
    }
    all
}

impl Bootstrap {
    /// What the device with this external id gets for its key. `from` is where it asks from: after too many wrong
    /// keys it is not heard from there for a while. Whether the configuration is active does not matter.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], also if the thing is disabled; [`Refusal::Denied`] for another key;
    /// [`Refusal::Busy`] after too many.
    pub async fn fetch(
        &self,
        from: &str,
        external_id: &str,
        external_key: &Secret,
    ) -> Result<Provision, Refusal> {
        self.provide(from, external_id, Some(external_key)).await
    }

    /// As [`Bootstrap::fetch`], for a device that shows its key encrypted: an IV and the key in hexadecimal digits.
    /// The answer is the JSON of [`Provision::json`], encrypted.
    ///
    /// # Errors
    /// As of [`Bootstrap::fetch`].
    pub async fn fetch_secure(
        &self,
        from: &str,
        external_id: &str,
        shown_key: &Secret,
    ) -> Result<Vec<u8>, Refusal> {
        let key = self.cipher.open_key(shown_key.expose());
        let provision = self.provide(from, external_id, key.as_ref()).await?;
        Ok(self.cipher.seal(provision.json().to_string().as_bytes()))
    }

    async fn provide(
        &self,
        from: &str,
        external_id: &str,
        external_key: Option<&Secret>,
    ) -> Result<Provision, Refusal> {
        if super::check_external("external_id", external_id).is_err() {
            return Err(Refusal::NotFound("configuration"));
        }
        let guesser = format!("{from}\n{external_id}");
        if self.guesses.is_shut_out(&guesser, Instant::now()) {
            return Err(Refusal::Busy);
        }
        match self.check(external_id, external_key).await {
            Ok((config, key)) => {
                self.guesses.forget(&guesser);
                let event = events::fetched(&config, self.private_keys);
                self.store.record_events(vec![event]).await;
                Ok(Provision {
                    thing: config.thing,
                    thing_key: key,
                    channels: config.channels,
                    content: config.content,
                    client_cert: config.certificates.client_cert,
                    client_key: config.certificates.client_key,
                    ca_cert: config.certificates.ca_cert,
                })
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::Denied | Refusal::NotFound(_)) {
                    self.guesses.count(guesser, Instant::now());
                    let event = events::not_fetched(external_id);
                    self.store.record_events(vec![event]).await;
                }
                Err(refusal)
            }
        }
    }

    /// The configuration, and a key of its thing that holds now.
    async fn check(
        &self,
        external_id: &str,
        external_key: Option<&Secret>,
    ) -> Result<(Config, Secret), Refusal> {
        let found = self.store.config_of_device(external_id).await?;
        let kept = found.ok_or(Refusal::NotFound("configuration"))?;
        let offered = external_key.ok_or(Refusal::Denied)?;
        if !self.safe.is_external_key(&kept.external_key, offered) {
            return Err(Refusal::Denied);
        }
        let (revision, loan) = (kept.revision, self.safe.open_loan(&kept)?);
        let config = self.open(kept)?;
        let (thing, kept_key) = (config.thing, config.thing_key.clone());
        if let Some(key) = kept_key
            && self.things.is_key_of(thing, &key).await?
        {
            return Ok((config, key));
        }
        // It has another key now, or is disabled.
        if let Some(key) = self.things.key_of(thing, loan.as_ref()).await? {
            self.keep_thing_key(thing, revision, &key).await?;
            return Ok((config, key));
        }
        if loan.is_some() {
            // It is good for nothing any longer: the owner's next look brings another.
            let forget = Change::Loan(None);
            let forgotten = self
                .store
                .change_config(thing, revision, forget, Vec::new());
            forgotten.await?;
        }
        let whose = "thing that is enabled and whose key can be had";
        Err(Refusal::NotFound(whose))
    }

    fn open(&self, kept: KeptConfig) -> Result<Config, Refusal> {
        self.safe.open_config(kept)
    }
}

/// Who has shown wrong keys lately. Bounded: when it is full, whoever has been quiet longest is forgotten.
#[derive(Debug)]
pub struct Guesses {
    /// Wrong keys within `window` that are answered; 0 for any number.
    most: u32,
    window: Duration,
    seen: Mutex<HashMap<String, (u32, Instant)>>,
}

/// Guessers that are remembered.
const MAX_GUESSERS: usize = 10_000;

impl Guesses {
    #[must_use]
    pub fn new(most: u32, window: Duration) -> Self {
        Self {
            most,
            window,
            seen: Mutex::default(),
        }
    }

    fn is_shut_out(&self, guesser: &str, now: Instant) -> bool {
        let seen = self.seen();
        let found = seen.get(guesser).filter(|(_, at)| now - *at < self.window);
        self.most > 0 && found.is_some_and(|(count, _)| *count >= self.most)
    }

    /// The window begins anew with every wrong key.
    fn count(&self, guesser: String, now: Instant) {
        let mut seen = self.seen();
        if seen.len() >= MAX_GUESSERS && !seen.contains_key(&guesser) {
            seen.retain(|_, (_, at)| now - *at < self.window);
            let quietest = seen.iter().min_by_key(|(_, (_, at))| *at);
            if seen.len() >= MAX_GUESSERS
                && let Some((quietest, _)) = quietest
            {
                let quietest = quietest.clone();
                seen.remove(&quietest);
            }
        }
        let (count, at) = seen.entry(guesser).or_insert((0, now));
        if now - *at >= self.window {
            *count = 0;
        }
        *count += 1;
        *at = now;
    }

    fn forget(&self, guesser: &str) {
        self.seen().remove(guesser);
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u32, Instant)>> {
        self.seen
            .lock()
            .expect("invariant: no panic under the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_too_often_is_shut_out_for_a_while() {
        let (window, begin) = (Duration::from_secs(60), Instant::now());
        let guesses = Guesses::new(3, window);
        for n in 0..3 {
            assert!(!guesses.is_shut_out("me", begin), "{n}");
            guesses.count("me".into(), begin);
        }
        assert!(guesses.is_shut_out("me", begin));
        assert!(!guesses.is_shut_out("you", begin));
        let later = begin + window;
        assert!(!guesses.is_shut_out("me", later));
        guesses.count("me".into(), later);
        assert!(!guesses.is_shut_out("me", later));
        guesses.forget("me");
        assert!(guesses.seen().is_empty());
        let any = Guesses::new(0, window);
        any.count("me".into(), begin);
        assert!(!any.is_shut_out("me", begin));
    }

    #[test]
    fn only_so_many_guessers_are_remembered() {
        let guesses = Guesses::new(1, Duration::from_secs(600));
        let begin = Instant::now();
        for n in 0..MAX_GUESSERS + 10 {
            let now = begin + Duration::from_millis(n as u64);
            guesses.count(n.to_string(), now);
        }
        assert_eq!(guesses.seen().len(), MAX_GUESSERS);
        let now = begin + Duration::from_secs(20);
        assert!(!guesses.is_shut_out("0", now));
        assert!(guesses.is_shut_out(&(MAX_GUESSERS + 9).to_string(), now));
    }
}
