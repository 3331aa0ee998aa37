use std::sync::Mutex;

use super::*;

/// Grants everything to one key, and counts the questions.
struct Owner {
    thing: ThingId,
    asked: Mutex<usize>,
}

#[async_trait]
impl Authority for Owner {
    async fn identify(&self, key: &Secret) -> Result<ThingId, AuthorityError> {
        *self.asked.lock().expect("lock") += 1;
        if key.matches("key") {
            Ok(self.thing)
        } else {
            Err(AuthorityError::Denied)
        }
    }

    async fn authorize(
        &self,
        key: &Secret,
        _: ChannelId,
        _: Action,
    ) -> Result<ThingId, AuthorityError> {
        self.identify(key).await
    }

    async fn vouch(&self, thing: ThingId) -> Result<(), AuthorityError> {
        match thing == self.thing {
            true => Ok(()),
            false => Err(AuthorityError::Denied),
        }
    }
}

fn door(max_entries: usize) -> (Access, Credentials) {
    let thing = ThingId::generate();
    let owner = Arc::new(Owner {
        thing,
        asked: Mutex::new(0),
    });
    let config = Config {
        ttl: Duration::from_secs(60),
        recheck_timeout: Duration::from_secs(10),
        follow: false,
        max_entries,
    };
    (
        Access::new(owner, config),
        Credentials {
            thing: Some(thing),
            proof: Proof::Key(Secret::new("key")),
        },
    )
}

#[tokio::test]
async fn an_answer_is_remembered_until_its_time_is_up() {
    let (access, credentials) = door(10);
    let now = Instant::now();
    assert_eq!(access.authenticate(&credentials, now), Verdict::Unknown);
    let known = access.identify(&credentials).await.expect("granted");
    assert_eq!(
        access.authenticate(&credentials, now),
        Verdict::Granted(known)
    );
    let later = now + Duration::from_secs(61);
    assert_eq!(access.authenticate(&credentials, later), Verdict::Unknown);
}

#[tokio::test]
async fn a_key_opens_its_own_thing_only() {
    let (access, credentials) = door(10);
    access.identify(&credentials).await.expect("granted");
    let other = Credentials {
        thing: Some(ThingId::generate()),
        ..credentials
    };
    assert_eq!(access.authenticate(&other, Instant::now()), Verdict::Denied);
    assert!(matches!(
        access.identify(&other).await,
        Err(AuthorityError::Denied)
    ));
}

#[tokio::test]
async fn whoever_is_refused_has_cost_the_same() {
    let (thing, stranger) = (ThingId::generate(), ThingId::generate());
    for (named, key) in [
        (Some(thing), "wrong"),
        (Some(stranger), "wrong"),
        (Some(stranger), "key"),
        (None, "wrong"),
        (None, "key"),
        (None, ""),
    ] {
        let owner = Arc::new(Owner {
            thing,
            asked: Mutex::new(0),
        });
        let config = Config {
            ttl: Duration::from_secs(60),
            recheck_timeout: Duration::from_secs(10),
            follow: false,
            max_entries: 10,
        };
        let access = Access::new(Arc::clone(&owner) as Arc<dyn Authority>, config);
        let credentials = Credentials {
            thing: named,
            proof: Proof::Key(Secret::new(key)),
        };
        // Twice: a refusal is not remembered.
        for asked in 1..=2 {
            let known = access.authenticate(&credentials, Instant::now());
            assert_eq!(known, Verdict::Unknown);
            let refused = access.identify(&credentials).await;
            assert!(matches!(refused, Err(AuthorityError::Denied)));
            assert_eq!(*owner.asked.lock().expect("lock"), asked);
        }
    }
}

#[tokio::test]
async fn a_permit_ends_with_any_revocation_and_is_found_again() {
    let (access, credentials) = door(10);
    let (channel, now) = (ChannelId::generate(), Instant::now());
    let thing = access.identify(&credentials).await.expect("granted");
    let permit = access
        .ask(thing, &credentials.proof, channel, Action::Write)
        .await;
    let permit = permit.expect("granted");
    assert!(access.holds(&permit, now));

    let grant = |thing| Revoked::Grant {
        thing,
        channel,
        left: Actions::NONE,
    };
    access.forget(&[grant(ThingId::generate())]);
    assert!(!access.is_current(&permit) && !access.still_knows(&thing));
    assert!(!access.holds(&permit, now));
    let again = access.authorize(thing, channel, Action::Write, now);
    assert!(matches!(again, Verdict::Granted(permit) if access.holds(&permit, now)));

    access.forget(&[grant(thing.thing())]);
    assert!(matches!(
        access.authorize(thing, channel, Action::Write, now),
        Verdict::Unknown
    ));
    assert!(matches!(
        access.authenticate(&credentials, now),
        Verdict::Granted(_)
    ));
    for revoked in [Revoked::Thing, Revoked::Key] {
        access.identify(&credentials).await.expect("granted");
        access.forget(&[revoked(thing.thing())]);
        assert_eq!(access.authenticate(&credentials, now), Verdict::Unknown);
    }
}

#[tokio::test]
async fn a_channel_that_is_gone_is_forgotten_for_everybody_and_alone() {
    let (access, credentials) = door(10);
    let (gone, other, now) = (ChannelId::generate(), ChannelId::generate(), Instant::now());
    let thing = access.identify(&credentials).await.expect("granted");
    for channel in [gone, other] {
        let granted = access.ask(thing, &credentials.proof, channel, Action::Read);
        granted.await.expect("granted");
    }
    access.forget(&[Revoked::Channel(gone)]);
    let known = |channel| access.authorize(thing, channel, Action::Read, now);
    assert!(matches!(known(gone), Verdict::Unknown));
    assert!(matches!(known(other), Verdict::Granted(_)));
}

#[tokio::test]
async fn a_certificate_counts_until_its_thing_is_revoked() {
    let (access, with_key) = door(10);
    let shown = |thing| Credentials {
        thing,
        proof: Proof::Certificate,
    };
    let (own, now) = (shown(with_key.thing), Instant::now());
    let other = shown(Some(ThingId::generate()));
    for credentials in [&other, &shown(None)] {
        assert!(access.identify(credentials).await.is_err());
    }
    let thing = access.identify(&own).await.expect("here and enabled");
    assert!(matches!(
        access.authenticate(&own, now),
        Verdict::Granted(_)
    ));
    assert_eq!(access.authenticate(&other, now), Verdict::Unknown);
    // What it may do is another question, which this authority does not answer by id.
    let channel = ChannelId::generate();
    let asked = access.ask(thing, &own.proof, channel, Action::Read).await;
    assert!(matches!(asked, Err(AuthorityError::Denied)));
    // To know a thing by its certificate is not to know any key of it.
    assert_eq!(access.authenticate(&with_key, now), Verdict::Unknown);

    access.forget(&[Revoked::Thing(thing.thing())]);
    assert_eq!(access.authenticate(&own, now), Verdict::Unknown);
    for _ in 0..100 {
        access.identify(&own).await.expect("here and enabled");
        assert!(access.certified.len() <= 10);
    }
}

#[tokio::test]
async fn memory_is_bounded() {
    for max_entries in [1, 3, 100] {
        let (access, credentials) = door(max_entries);
        let thing = access.identify(&credentials).await.expect("granted");
        for _ in 0..500 {
            let channel = ChannelId::generate();
            access
                .ask(thing, &credentials.proof, channel, Action::Read)
                .await
                .expect("granted");
            assert!(access.grants.len() <= max_entries);
        }
    }
}
