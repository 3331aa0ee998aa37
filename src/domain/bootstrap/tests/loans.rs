//! The key of a thing, as it is lent to the service.

use super::*;

impl Scene {
    /// Gives the thing another key, of which nobody tells.
    fn rotate(&self, id: ThingId, key: &str) {
        let entry = (Secret::new(key), true);
        self.things.known().things.insert(id, entry);
    }

    async fn key_of_device(&self) -> Option<Secret> {
        let fetched = self.fetch("ff-01", "external key").await;
        fetched.ok().map(|it| it.thing_key)
    }
}

#[tokio::test]
async fn a_device_gets_the_key_that_holds_by_the_loan_that_was_made_with_the_configuration() {
    let scene = scene();
    let id = scene.add("ff-01", &[]).await;
    for key in ["the next key", "the one after"] {
        scene.rotate(id, key);
        assert!(scene.key_of_device().await.expect("lent").matches(key));
    }
    let again = NewConfig {
        thing: Some(id),
        ..new("ff-02", &[])
    };
    let refused = scene.bootstrap.add(&scene.asker, again).await;
    assert!(refused.is_err());
    scene.rotate(id, "after a configuration that could not be made");
    assert!(scene.key_of_device().await.is_some());
}

#[tokio::test]
async fn a_loan_that_has_ended_is_made_again_when_the_owner_looks() {
    let scene = scene();
    let id = scene.add("ff-01", &[]).await;
    scene.things.known().loans.clear();
    let provided = scene.key_of_device().await.expect("the old key holds");
    scene.rotate(id, "the next key");
    for _ in 0..2 {
        assert!(scene.key_of_device().await.is_none());
    }
    scene.view(id).await;
    let next = scene.key_of_device().await.expect("lent again");
    assert!(next.matches("the next key") && !next.matches(provided.expose()));
}

#[tokio::test]
async fn a_loan_ends_with_its_configuration() {
    let scene = scene();
    let id = scene.add("ff-01", &[]).await;
    assert!(scene.things.known().loans.contains_key(&id));
    let removed = scene.bootstrap.remove(&scene.asker, id).await;
    removed.expect("removed");
    assert!(scene.things.known().loans.is_empty());
}
