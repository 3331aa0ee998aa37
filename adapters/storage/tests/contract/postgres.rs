//! What is PostgreSQL's alone: it may go away, refuse, and be shared by several processes.

use std::time::Duration;

use rollcall_domain::event::Stream;
use rollcall_domain::groups::GroupStore;
use rollcall_domain::identity::GroupId;
use rollcall_domain::ports::StoreError;
use rollcall_storage::database::{Config, Database};

use crate::log::{check, event, group, log};
use crate::postgres_server::PostgresServer;
use crate::stores::{self, Kept, config};

#[tokio::test]
async fn processes_share_a_database_and_hear_of_each_other() {
    let Kept { database, place } = stores::postgres().await;
    let other = Database::connect(&place.1).await.expect("opens too");
    let (here, there) = (log(&database, Stream::Things), log(&other, Stream::Things));
    assert_eq!(here.producer(), there.producer());
    let mut tasks = tokio::task::JoinSet::new();
    for database in [&database, &other, &database, &other] {
        let database = database.clone();
        tasks.spawn(async move {
            for number in 0..50 {
                let events = vec![event(Stream::Things, number)];
                database.record_events(events).await.expect("kept");
            }
        });
    }
    tasks.join_all().await;
    here.wait(199).await;
    there.wait(199).await;
    check(&*here, 200).await;

    here.set_relayed(150).await.expect("marked");
    there.refresh().await.expect("read");
    assert_eq!(there.relayed(), 150);
    // Both find that the name is spent: one gives a new one.
    let (a, b) = tokio::join!(here.renew_producer(), there.renew_producer());
    assert_eq!(a.expect("renewed"), b.expect("renewed"));
}

#[tokio::test]
async fn who_starts_first_makes_the_tables() {
    let server = PostgresServer::shared();
    let config = config(&server.url(&server.database()));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let config = config.clone();
        tasks.spawn(async move { Database::connect(&config).await.map(|_| ()) });
    }
    for opened in tasks.join_all().await {
        opened.expect("opens");
    }
}

#[tokio::test]
async fn while_it_is_away_everything_is_refused_and_nothing_is_lost() {
    let server = PostgresServer::start();
    let name = server.database();
    let config = Config {
        connect_timeout: Duration::from_secs(1),
        ..config(&server.url(&name))
    };
    let database = Database::connect(&config).await.expect("opens");
    let add = async |number: u8| {
        let groups = [group(number, &number.to_string())];
        let events = vec![event(Stream::Users, number.into())];
        database.add_groups(&groups, events).await
    };
    add(1).await.expect("kept");
    server.stop();
    let failed = add(2).await.expect_err("away");
    assert!(matches!(failed, StoreError::Failed { .. }), "{failed}");
    let record = database.record_events(vec![event(Stream::Users, 3)]);
    record.await.expect_err("away");
    let read: Result<_, _> = database.group(GroupId::from_bytes([1; 16])).await;
    read.expect_err("away");
    server.run();
    // It comes back by itself.
    while add(4).await.is_err() {}
    let entries = check(&*log(&database, Stream::Users), 2).await;
    assert_eq!(entries.len(), 2);
    let found = async |number| {
        let id = GroupId::from_bytes([number; 16]);
        let group = database.group(id).await.expect("read");
        group.is_some()
    };
    assert!(found(1).await && !found(2).await && found(4).await);
}

#[tokio::test]
async fn a_transaction_that_is_cut_off_is_there_with_its_event_or_not_at_all() {
    let server = PostgresServer::start();
    let name = server.database();
    let database = Database::connect(&config(&server.url(&name))).await;
    let database = database.expect("opens");
    let writing = {
        let database = database.clone();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            for number in 1..=120 {
                let groups = [group(number, &number.to_string())];
                let events = vec![event(Stream::Users, number.into())];
                if database.add_groups(&groups, events).await.is_ok() {
                    kept.push(number.to_string());
                }
            }
            kept
        })
    };
    let users = log(&database, Stream::Users);
    for position in [10, 30, 60] {
        users.wait(position).await;
        let throw_out = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        server.query(&name, throw_out);
    }
    let kept = writing.await.expect("written");
    users.refresh().await.expect("read");
    let entries = check(&*users, usize::try_from(users.last()).expect("few")).await;
    let told: Vec<String> = entries
        .iter()
        .map(|entry| crate::log::value(entry, "number").to_owned())
        .collect();
    let rows = server.query(&name, "SELECT name FROM groups ORDER BY created_at, id");
    assert_eq!(rows.lines().collect::<Vec<_>>(), told);
    // Who was told so is there; who was told otherwise may be: the answer itself was cut off.
    assert!(kept.iter().all(|name| told.contains(name)));
}

#[tokio::test]
async fn what_keeps_it_from_being_used_is_told() {
    let server = PostgresServer::shared();
    let database = server.database();
    server.query(
        &database,
        "CREATE ROLE joe LOGIN PASSWORD 'open sesame'; REVOKE ALL ON SCHEMA public FROM PUBLIC",
    );
    let later = server.database();
    Database::connect(&config(&server.url(&later)))
        .await
        .expect("opens");
    let newer = "INSERT INTO _sqlx_migrations
         VALUES (9999, 'from the future', now(), true, '\\x00', 1)";
    server.query(&later, newer);
    let away = "postgres://joe@localhost/rollcall?host=/nowhere";
    for (url, told) in [
        (server.url_of("joe", "open%20door", &database), "password"),
        (server.url_of("joe", "open%20sesame", &database), "GRANT"),
        (server.url("elsewhere"), "no such database"),
        (server.url(&later), "later version"),
        (away.to_owned(), "cannot be reached"),
        (
            "postgres://".to_owned() + "?sslmode=perhaps",
            "makes no sense",
        ),
    ] {
        let opened = Database::connect(&config(&url)).await;
        let error = opened.map(|_| ()).expect_err(&url);
        let mut chain = error.to_string();
        assert!(chain.contains(told), "{told}: {chain}");
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            chain = format!("{chain}: {error}");
            cause = error.source();
        }
        assert!(!chain.contains("open"), "a secret: {chain}");
    }
}

#[tokio::test]
async fn who_holds_a_log_does_not_keep_others_waiting_for_ever() {
    let server = PostgresServer::shared();
    let name = server.database();
    let config = Config {
        statement_timeout: Duration::from_millis(200),
        ..config(&server.url(&name))
    };
    let database = Database::connect(&config).await.expect("opens");
    let holding = {
        let (server, name) = (server.clone(), name.clone());
        let hold = "UPDATE logs SET last = last WHERE stream = 'things'; SELECT pg_sleep(600)";
        std::thread::spawn(move || server.try_query(&name, hold))
    };
    let sleeping = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while server.query(&name, sleeping).is_empty() {}
    let record = async || {
        let events = vec![event(Stream::Things, 1)];
        database.record_events(events).await
    };
    record().await.expect_err("another has the log");
    let wake = format!("SELECT pg_terminate_backend(({sleeping}))");
    server.query(&name, &wake);
    holding.join().expect("ends").expect_err("cut off");
    record().await.expect("kept");
    check(&*log(&database, Stream::Things), 1).await;
}
