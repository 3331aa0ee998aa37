//! States and connections.

use super::*;

#[tokio::test]
async fn state_and_connections_go_through_the_things_service() {
    let scene = scene();
    let (a, b) = (scene.things.channel("a"), scene.things.channel("b"));
    let id = scene.add("ff-01", &[a]).await;
    let (bootstrap, asker) = (&scene.bootstrap, &scene.asker);
    assert!(!scene.is_connected(id, a));
    bootstrap
        .change_state(asker, id, State::Active)
        .await
        .expect("active");
    assert!(scene.is_connected(id, a));
    assert_eq!(
        scene.last("operation").as_deref(),
        Some("thing.state_change")
    );
    assert_eq!(scene.last("timestamp").map(|it| it.len()), Some(10));
    scene.things.known().is_away = true;
    let refused = bootstrap.change_state(asker, id, State::Inactive).await;
    assert!(matches!(refused, Err(Refusal::Unavailable { .. })));
    scene.things.known().is_away = false;
    assert_eq!(scene.view(id).await.state, State::Active);
    bootstrap
        .update_connections(asker, id, &[b])
        .await
        .expect("changed");
    assert!(scene.is_connected(id, b) && !scene.is_connected(id, a));
    assert_eq!(scene.last("channels"), Some(b.to_string()));
    bootstrap
        .update_connections(asker, id, &[])
        .await
        .expect("emptied");
    assert!(!scene.is_connected(id, b));
    assert!(scene.view(id).await.channels.is_empty());
}

#[tokio::test]
async fn what_is_taken_out_of_a_configuration_is_disconnected_in_either_state() {
    let scene = scene();
    let (a, b) = (scene.things.channel("a"), scene.things.channel("b"));
    let id = scene.add("ff-01", &[a, b]).await;
    // By somebody's hand, beside a configuration that is inactive.
    scene.things.known().connected.extend([(id, a), (id, b)]);
    let (bootstrap, asker) = (&scene.bootstrap, &scene.asker);
    let changed = bootstrap.update_connections(asker, id, &[b]).await;
    changed.expect("changed");
    assert!(!scene.is_connected(id, a) && scene.is_connected(id, b));
    // And none is connected that is new.
    scene.things.known().connected.clear();
    let changed = bootstrap.update_connections(asker, id, &[a, b]).await;
    changed.expect("changed");
    assert!(!scene.is_connected(id, a) && !scene.is_connected(id, b));
}

#[tokio::test]
async fn a_state_holds_once_it_was_asked_for_whatever_it_was_before() {
    let scene = scene();
    let (a, b) = (scene.things.channel("a"), scene.things.channel("b"));
    let id = scene.add("ff-01", &[a, b]).await;
    let set = async |state| {
        let changed = scene.bootstrap.change_state(&scene.asker, id, state).await;
        changed.expect("changed");
        let told = scene.last("operation");
        assert_eq!(told.as_deref(), Some("thing.state_change"));
        assert_eq!(scene.last("state"), Some(state.number().to_string()));
        assert_eq!(scene.view(id).await.state, state);
    };
    let cut = || {
        scene.things.known().connected.remove(&(id, a));
        Timestamp::now()
    };
    set(State::Active).await;
    let at = cut();
    set(State::Active).await;
    assert!(scene.is_connected(id, a) && scene.is_connected(id, b));
    // Late news of what has been made good since.
    let news = format!("operation=policies.delete subject={id} object={a}");
    scene.hear(&news, at).await;
    assert_eq!(scene.view(id).await.state, State::Active);

    let at = cut();
    scene.hear(&news, at).await;
    assert_eq!(scene.view(id).await.state, State::Inactive);
    assert!(scene.is_connected(id, b));
    for _ in 0..2 {
        set(State::Inactive).await;
        assert!(!scene.is_connected(id, a) && !scene.is_connected(id, b));
    }
    // It was there before it was disconnected, and is gone since.
    let at = Timestamp::now();
    set(State::Inactive).await;
    let gone = format!("operation=channel.remove id={a} status=disabled");
    scene.hear(&gone, at).await;
    assert_eq!(scene.view(id).await.channels.len(), 1);
}
