//! Sends what is due, when it is due.

use std::sync::Arc;
use std::time::Duration;

use rollcall_domain::identity::Timestamp;
use rollcall_domain::users::{Mail, MailError, Mailer, Outbox, Users};
use tokio::sync::{Notify, watch};

/// Without a word of anything new, how often it is looked: another process may have put something in.
const ROUND: Duration = Duration::from_secs(30);
/// After storage has failed, and at least between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Rung when there is something to send.
#[derive(Clone, Default)]
pub struct Doorbell(Arc<Notify>);

impl Outbox for Doorbell {
    fn filled(&self) {
        self.0.notify_one();
    }
}

pub struct Postman {
    users: Arc<Users>,
    mailer: Arc<dyn Mailer>,
    bell: Doorbell,
}

impl Postman {
    #[must_use]
    pub fn new(users: Arc<Users>, mailer: Arc<dyn Mailer>, bell: Doorbell) -> Self {
        Self {
            users,
            mailer: Arc::new(Counted(mailer)),
            bell,
        }
    }

    /// Works until `stop` is true. A mail that is under way then is not waited for: it is sent again after the next
    /// start, with another link.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            let wait = tokio::select! {
                wait = self.round() => wait,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            tokio::select! {
                () = self.bell.0.notified() => {}
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// How long to wait for the next one.
    async fn round(&self) -> Duration {
        match self.users.send_resets(&*self.mailer).await {
            Ok(None) => ROUND,
            Ok(Some(due)) => {
                let wait = due.0.saturating_sub(Timestamp::now().0);
                Duration::from_nanos(wait).min(ROUND)
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "cannot look for mails to send");
                PAUSE
            }
        }
    }
}

/// Says what came of each mail, and never what is in it.
struct Counted(Arc<dyn Mailer>);

#[async_trait::async_trait]
impl Mailer for Counted {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let sent = self.0.send(mail).await;
        let outcome = match &sent {
            Ok(()) => "sent",
            Err(error @ MailError::Later(_)) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, "a mail is tried again later");
                "deferred"
            }
            Err(error @ MailError::Never(_)) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, "a mail cannot be sent");
                "refused"
            }
        };
        metrics::counter!("rollcall_mails_total", "outcome" => outcome).increment(1);
        sent
    }

    fn given_up(&self) {
        tracing::warn!("a mail is given up: it could not be sent for mail.give_up_after");
        metrics::counter!("rollcall_mails_total", "outcome" => "given_up").increment(1);
    }
}
