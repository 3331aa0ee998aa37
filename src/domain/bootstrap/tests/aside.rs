//! Entries that were set aside.

use super::*;
use crate::bootstrap::SetAside;

const NONSENSE: &str = "operation=thing.remove id=x status=disabled";

impl Scene {
    pub(super) async fn aside(&self) -> Vec<SetAside> {
        let page = Page {
            offset: 0,
            limit: 100,
        };
        let listed = self.bootstrap.set_aside(&asker(true).caller, page).await;
        listed.expect("listed").items
    }

    /// As if an earlier version had not understood it. Returns its id.
    async fn set_aside(&self, text: &str, at: Timestamp) -> String {
        let mut fields: Vec<Field> = text
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned().into(), value.to_owned().into()))
            .collect();
        fields.push(("occurred_at".into(), at.to_string().into()));
        let after = self.bootstrap.heard_last("s").await.expect("read");
        let last = after.as_deref().map_or(0, |it| it.parse().expect("one"));
        let id = (last + 1u64).to_string();
        let heard = Heard {
            source: "s".into(),
            after,
            id: id.clone(),
            effect: Effect::SetAside {
                reason: "it is not understood yet".into(),
                fields,
            },
        };
        assert!(self.store.hear(&heard).await.expect("asked"));
        id
    }

    async fn retry(&self, id: &str) -> Result<Told, Refusal> {
        self.bootstrap.retry(&asker(true), None, id).await
    }
}

#[tokio::test]
async fn what_was_set_aside_is_for_administrators() {
    let scene = scene();
    scene.hear(NONSENSE, Timestamp(7)).await;
    let (bootstrap, anybody) = (&scene.bootstrap, &scene.asker);
    let page = Page::default();
    let listed = bootstrap.set_aside(&anybody.caller, page).await;
    assert!(matches!(listed, Err(Refusal::Denied)));
    let retried = bootstrap.retry(anybody, None, "1").await;
    assert!(matches!(retried, Err(Refusal::Denied)));
    let dropped = bootstrap.drop_set_aside(&anybody.caller, None, "1").await;
    assert!(matches!(dropped, Err(Refusal::Denied)));
    let admin = asker(true);
    let page = Page {
        offset: 0,
        limit: 101,
    };
    let listed = bootstrap.set_aside(&admin.caller, page).await;
    assert!(matches!(
        listed,
        Err(Refusal::Invalid { field: "limit", .. })
    ));

    let [entry] = &scene.aside().await[..] else {
        panic!("one entry");
    };
    assert_eq!((&*entry.source, &*entry.id), ("s", "1"));
    assert_eq!(entry.reason, "its id is no id");
    assert_eq!(entry.fields[1], ("id".into(), "x".into()));
    for known in [None, Some("s")] {
        let wrong = bootstrap.drop_set_aside(&admin.caller, known, "2").await;
        assert!(matches!(wrong, Err(Refusal::NotFound(_))));
    }
    let elsewhere = bootstrap.drop_set_aside(&admin.caller, Some("t"), "1");
    assert!(matches!(elsewhere.await, Err(Refusal::NotFound(_))));
    let dropped = bootstrap.drop_set_aside(&admin.caller, Some("s"), "1");
    dropped.await.expect("dropped");
    assert!(scene.aside().await.is_empty());
    assert!(scene.operations().is_empty());
}

#[tokio::test]
async fn what_is_retried_and_makes_sense_has_its_effect_once() {
    let scene = scene();
    let kitchen = scene.things.channel("kitchen");
    let id = scene.add("ff-01", &[kitchen]).await;
    scene.hear(NONSENSE, Timestamp::now()).await;
    let still = scene.retry("1").await;
    assert!(matches!(still, Err(Refusal::Invalid { field: "id", .. })));
    assert_eq!(scene.aside().await.len(), 1);

    let gone = format!("operation=channel.remove id={kitchen} status=disabled");
    // Of before the configuration was made.
    let old = scene.set_aside(&gone, Timestamp(1)).await;
    assert_eq!(scene.retry(&old).await.expect("heard"), Told::News);
    assert_eq!(scene.view(id).await.channels.len(), 1);
    let new = scene.set_aside(&gone, Timestamp::now()).await;
    assert_eq!(scene.retry(&new).await.expect("heard"), Told::News);
    let told = scene.last("operation");
    assert_eq!(told.as_deref(), Some("config.remove_handler"));
    assert!(scene.view(id).await.channels.is_empty());
    assert!(matches!(scene.retry(&new).await, Err(Refusal::NotFound(_))));

    let other = scene.set_aside("operation=thing.view id=x", Timestamp(1));
    let other = other.await;
    assert_eq!(scene.retry(&other).await.expect("heard"), Told::NoNews);
    assert_eq!(scene.aside().await.len(), 1);
}

#[tokio::test]
async fn a_configuration_follows_its_thing_to_the_owner_it_has_now() {
    let scene = scene();
    let id = scene.add("ff-01", &[]).await;
    let (earlier, owner) = (UserId::generate(), asker(false));
    scene.things.known().owner = Some(owner.caller.user);
    let told = format!("operation=thing.update_owner id={id} owner={earlier}");
    let entry = scene.set_aside(&told, Timestamp::now()).await;
    assert_eq!(scene.retry(&entry).await.expect("heard"), Told::News);
    scene.bootstrap.view(&owner, id).await.expect("the owner's");
}

#[tokio::test]
async fn of_an_entry_that_is_too_large_the_reason_is_kept() {
    let scene = scene();
    let large = format!("{NONSENSE} name={}", "x".repeat(16 * 1024));
    let told = scene.hear(&large, Timestamp(7)).await;
    assert_eq!(told, Told::SetAside("its id is no id".to_owned()));
    let entries = scene.aside().await;
    assert!(entries[0].fields.is_empty());
    let reason = &entries[0].reason;
    assert!(reason.starts_with("its id is no id; its 16"), "{reason}");
}
