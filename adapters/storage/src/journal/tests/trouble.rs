//! A disk that is full, read-only or slow, files that are damaged or end too early, and copies.

use super::*;

#[tokio::test]
async fn a_full_disk_refuses_arrivals_and_keeps_departures_for_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = open(folder.path()).await;
    let early = session(1);
    assert_eq!(
        append(&journal, vec![event(&early, Change::Arrived)]).await,
        Arrivals::Kept
    );
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
        .fetch_one(&journal.pool)
        .await
        .expect("pages");
    let limit = |pages: i64| {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        let pool = journal.pool.clone();
        async move {
            sqlx::query(sqlx::AssertSqlSafe(pragma))
                .execute(&pool)
                .await
                .expect("a limit");
        }
    };
    limit(pages).await;
    // Large enough to need another page.
    let mut refused = Vec::new();
    loop {
        let batch: Vec<Arc<Session>> = (0..50).map(session).collect();
        let arrivals = batch
            .iter()
            .map(|session| event(session, Change::Arrived))
            .collect();
        match append(&journal, arrivals).await {
            Arrivals::Kept => {}
            Arrivals::Failed => {
                refused.extend(batch);
                break;
            }
            Arrivals::Full => panic!("the journal is below its own bound"),
        }
    }
    assert!(!journal.is_writable());
    // The early one leaves, and so do those who were never let in.
    let left = Change::Left(Farewell::ConnectionLost);
    let departures = std::iter::once(&early)
        .chain(&refused)
        .map(|it| event(it, left))
        .collect();
    let answered = Arc::new(StdMutex::new(None));
    let answer = Arc::clone(&answered);
    journal.append(
        departures,
        Box::new(move |it| *answer.lock().expect("lock") = Some(it)),
    );
    let before = journal.online().len();
    limit(1_000_000).await;
    while journal.online().len() == before {
        tokio::task::yield_now().await;
    }
    journal.flush().await;
    assert!(journal.is_writable());
    let found = fields(&journal).await;
    let of = |session: &Arc<Session>| {
        let id = session.id.to_string();
        found.iter().filter(|it| it["session_id"] == id).count()
    };
    assert_eq!(of(&early), 2);
    assert!(
        refused.iter().all(|session| of(session) == 0),
        "who was refused has never been here"
    );
    journal.close().await;
}

#[tokio::test]
async fn a_file_that_is_not_ours_or_damaged_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("presence.db");
    std::fs::write(&path, "this is a diary, not a database").expect("written");
    let error = Journal::open(&path, &config(), "here", false)
        .await
        .err()
        .expect("refused");
    assert!(matches!(error, OpenError::Open { .. }), "{error}");
    std::fs::remove_file(&path).expect("removed");

    let journal = open(folder.path()).await;
    append(&journal, vec![event(&session(1), Change::Arrived)]).await;
    assert!(matches!(
        Journal::open(&path, &config(), "here", false).await,
        Err(OpenError::InUse { .. })
    ));
    sqlx::query("UPDATE groups SET events = x'0102'")
        .execute(&journal.pool)
        .await
        .expect("damage");
    let copy = tempfile::tempdir().expect("a folder");
    for name in ["presence.db", "presence.db-wal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).expect("a copy");
    }
    let damaged = Journal::open(&copy.path().join("presence.db"), &config(), "here", false).await;
    assert!(matches!(damaged, Err(OpenError::Damaged { .. })));

    // Kept with the roll by then, the group is not read again before someone asks for its events.
    journal.close().await;
    drop(journal);
    let journal = open(folder.path()).await;
    assert!(journal.read(0, 10).await.is_err());
    journal.close().await;
}

/// What is on the disk now, in a folder of its own.
fn copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for name in ["presence.db", "presence.db-wal"] {
        std::fs::copy(folder.join(name), copy.path().join(name)).expect("a copy");
    }
    copy
}

#[tokio::test]
async fn a_copy_is_not_opened_while_the_original_lives() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = open(folder.path()).await;
    append(&journal, vec![event(&session(1), Change::Arrived)]).await;
    let copy = copy(folder.path());
    let path = copy.path().join("presence.db");
    let config = config();
    let try_open = || Journal::open(&path, &config, "there", false);
    let error = try_open().await.err().expect("refused");
    assert!(matches!(error, OpenError::Copied { .. }), "{error}");
    // It has not been touched: whoever was here has not left.
    assert_eq!(journal.last(), 1);

    // One that goes by another name now is none of it any longer.
    journal.renew_producer().await.expect("renewed");
    let copied = try_open().await.expect("opens");
    assert_eq!((copied.last(), journal.last()), (2, 1));
    copied.close().await;
    drop(copied);
    journal.close().await;
    drop(journal);
    let copied = try_open().await.expect("opens");
    copied.close().await;
}

/// The session ids and kinds of all events.
async fn told(journal: &Journal) -> Vec<(String, String)> {
    let found = fields(journal).await;
    let told = |it: &HashMap<String, String>| (it["session_id"].clone(), it["event_type"].clone());
    found.iter().map(told).collect()
}

#[tokio::test]
async fn a_last_record_that_is_torn_is_as_if_it_had_never_been() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = open(folder.path()).await;
    let mut here = Vec::new();
    for n in 0..30 {
        let arriving = session(n);
        here.push(Arc::clone(&arriving));
        let mut batch = vec![event(&arriving, Change::Arrived)];
        if n % 3 == 2 {
            let left = Change::Left(Farewell::Disconnected);
            batch.push(event(&here.remove(0), left));
        }
        append(&journal, batch).await;
    }
    let written = told(&journal).await;
    let whole = copy(folder.path());
    journal.close().await;
    drop(journal);
    let wal = |folder: &Path| folder.join("presence.db-wal");
    let len = std::fs::metadata(wal(whole.path())).expect("a log").len();
    assert!(len > 60_000, "all that was written is in the log: {len}");
    let (mut shortest, mut longest) = (usize::MAX, 0);
    for cut in [
        1, 23, 24, 4_119, 4_120, 4_121, 9_000, 30_001, 50_000, 61_000,
    ] {
        for torn in [false, true] {
            let after = copy(whole.path());
            let file = std::fs::File::options()
                .write(true)
                .open(wal(after.path()))
                .expect("a log");
            file.set_len(len - cut).expect("cut");
            if torn {
                // The length was on the disk before the bytes were.
                file.set_len(len).expect("filled");
            }
            drop(file);
            let journal = open(after.path()).await;
            let told = told(&journal).await;
            let common = told
                .iter()
                .zip(&written)
                .take_while(|(a, b)| a == b)
                .count();
            // What follows are the farewells of those who were here then, once each.
            let mut here: Vec<&String> = Vec::new();
            for (session, kind) in &told {
                match kind.as_str() {
                    "connect" => here.push(session),
                    _ => here.retain(|it| *it != session),
                }
            }
            assert!(here.is_empty());
            assert!(told[common..].iter().all(|(_, kind)| kind == "disconnect"));
            (shortest, longest) = (shortest.min(common), longest.max(common));
            journal.close().await;
        }
    }
    assert!(
        shortest + 5 < longest && longest < written.len() + 1,
        "{shortest} to {longest} of {}",
        written.len()
    );
}

#[tokio::test]
async fn a_file_that_becomes_read_only_lets_nobody_in_until_it_can_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = open(folder.path()).await;
    let early = session(1);
    append(&journal, vec![event(&early, Change::Arrived)]).await;
    let only_read = |on: bool| {
        let pragma = format!("PRAGMA query_only = {on}");
        let pool = journal.pool.clone();
        async move {
            let set = sqlx::query(sqlx::AssertSqlSafe(pragma));
            set.execute(&pool).await.expect("a setting");
        }
    };
    only_read(true).await;
    let late = session(2);
    let refused = append(&journal, vec![event(&late, Change::Arrived)]).await;
    assert_eq!(refused, Arrivals::Failed);
    assert!(!journal.is_writable());
    let left = Change::Left(Farewell::Disconnected);
    append(&journal, vec![event(&early, left), event(&late, left)]).await;
    // Nothing is said to have happened that is not kept.
    assert_eq!((journal.last(), journal.len()), (1, 1));
    only_read(false).await;
    journal.wait(1).await;
    let again = append(&journal, vec![event(&late, Change::Arrived)]).await;
    assert_eq!(again, Arrivals::Kept);
    assert!(journal.is_writable());
    let of = |session: &Arc<Session>| session.id.to_string();
    let expected = [
        (&early, "connect"),
        (&early, "disconnect"),
        (&late, "connect"),
    ];
    let expected = expected.map(|(session, kind)| (of(session), kind.to_owned()));
    assert_eq!(told(&journal).await, expected);
    journal.close().await;
}

#[tokio::test]
async fn what_waits_for_a_slow_disk_is_kept_together_and_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = open(folder.path()).await;
    // As a commit that takes its time: somebody else writes to the file meanwhile.
    let options = options(
        &folder.path().join("presence.db"),
        SqliteSynchronous::Normal,
    );
    let pool = SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect_with(options).await.expect("opens");
    let slow = pool.begin_with("BEGIN IMMEDIATE").await.expect("begun");
    let answered = Arc::new(StdMutex::new(Vec::new()));
    let sessions: Vec<_> = (0..40).map(session).collect();
    for arriving in &sessions {
        let answered = Arc::clone(&answered);
        let answer = move |it| answered.lock().expect("lock").push(it);
        journal.append(vec![event(arriving, Change::Arrived)], Box::new(answer));
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(answered.lock().expect("lock").is_empty());
    assert_eq!((journal.last(), journal.len()), (0, 0));
    slow.rollback().await.expect("done");
    journal.flush().await;
    assert_eq!(*answered.lock().expect("lock"), [Arrivals::Kept; 40]);
    let expected = sessions
        .iter()
        .map(|it| (it.id.to_string(), "connect".to_owned()));
    assert!(told(&journal).await.into_iter().eq(expected));
    let groups: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM groups")
        .fetch_one(&pool)
        .await
        .expect("a count");
    assert!(groups <= 2, "{groups} commits");
    pool.close().await;
    journal.close().await;
}
