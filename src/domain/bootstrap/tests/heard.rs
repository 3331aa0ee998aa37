//! What things say.

use super::*;

#[tokio::test]
async fn what_things_say_is_taken_over_once() {
    let scene = scene();
    let (a, b) = (scene.things.channel("a"), scene.things.channel("b"));
    let id = scene.add("ff-01", &[a, b]).await;
    let other = scene.add("ff-02", &[a]).await;
    for id in [id, other] {
        let active = scene
            .bootstrap
            .change_state(&scene.asker, id, State::Active);
        active.await.expect("active");
    }
    let now = Timestamp::now();
    let updated = format!(
        "operation=channel.update id={a} name=new metadata={{\"k\":1}} updated_at=2026-01-01T00:00:00Z"
    );
    assert_eq!(scene.hear(&updated, now).await, Told::News);
    assert_eq!(
        scene.last("operation").as_deref(),
        Some("channel.update_handler")
    );
    let older = format!("operation=channel.update id={a} name=old updated_at=2025-01-01T00:00:00Z");
    scene.hear(&older, now).await;
    let copy = scene.view(id).await.channels;
    assert!(
        copy.iter()
            .any(|it| it.name == "new" && it.metadata["k"] == 1)
    );

    // From before it was connected: it is connected again since.
    let cut = format!("operation=policies.delete subject={id} object={a}");
    scene.hear(&cut, Timestamp(1)).await;
    assert_eq!(scene.view(id).await.state, State::Active);
    scene.hear(&cut, now).await;
    assert_eq!(scene.last("operation").as_deref(), Some("thing.disconnect"));
    assert_eq!(scene.view(id).await.state, State::Inactive);
    assert_eq!(scene.view(other).await.state, State::Active);

    let gone = format!("operation=channel.remove id={a} status=disabled");
    scene.hear(&gone, now).await;
    assert_eq!(
        scene.last("operation").as_deref(),
        Some("config.remove_handler")
    );
    assert_eq!(scene.last("channel_id"), Some(a.to_string()));
    let left = scene.view(id).await.channels;
    assert_eq!(left.iter().map(|it| it.id).collect::<Vec<_>>(), [b]);

    let heir = UserId::generate();
    let moved = format!("operation=thing.update_owner id={id} owner={heir}");
    scene.hear(&moved, now).await;
    assert!(scene.bootstrap.view(&scene.asker, id).await.is_err());

    let gone = format!("operation=thing.remove id={id} status=disabled");
    scene.hear(&gone, Timestamp(1)).await;
    let admin = asker(true);
    scene.bootstrap.view(&admin, id).await.expect("younger");
    scene.hear(&gone, now).await;
    assert_eq!(scene.last("config_id"), Some(id.to_string()));
    assert_eq!(scene.last("channel_id"), None);
    assert!(scene.bootstrap.view(&admin, id).await.is_err());
    scene
        .bootstrap
        .view(&admin, other)
        .await
        .expect("another's");
}

#[tokio::test]
async fn another_key_is_asked_for_when_things_say_so() {
    let scene = scene();
    let id = scene.add("ff-01", &[]).await;
    let rotated = (Secret::new("the next key"), true);
    scene.things.known().things.insert(id, rotated);
    let told = format!("operation=thing.update_secret id={id} status=enabled");
    scene.hear(&told, Timestamp::now()).await;
    let key = scene.view(id).await.thing_key.expect("asked for");
    assert!(key.matches("the next key"));
}

#[tokio::test]
async fn an_entry_has_its_effect_once_and_nonsense_is_kept_aside() {
    let scene = scene();
    let told = scene.hear("operation=thing.remove id=x status=disabled", Timestamp(1));
    assert!(matches!(told.await, Told::SetAside(_)));
    assert_eq!(scene.aside().await.len(), 1);
    assert_eq!(
        scene.hear("operation=thing.view id=x", Timestamp(1)).await,
        Told::NoNews
    );
    let again = scene.bootstrap.hear("s", Some("1"), "2", &[]).await;
    assert_eq!(again.expect("asked"), Told::ByOthers);
    let first = scene.bootstrap.hear("s", None, "1", &[]).await;
    assert_eq!(first.expect("asked"), Told::ByOthers);
    assert!(scene.operations().is_empty());
}
