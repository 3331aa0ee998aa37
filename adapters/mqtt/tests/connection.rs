//! Connections against all that the fuzz targets have found worth trying.

#[path = "support/corpus.rs"]
mod corpus;
#[path = "support/lab.rs"]
mod lab;
#[path = "support/table.rs"]
#[allow(dead_code, reason = "only its bytes are of interest here")]
mod table;

use proptest::prelude::*;

#[test]
fn clients_of_all_kinds_leave_the_front_in_order() {
    let corpus: Vec<_> = corpus::corpus("connection").into_iter().collect();
    std::thread::scope(|scope| {
        for part in corpus.chunks(corpus.len().div_ceil(8)) {
            scope.spawn(move || {
                let mut lab = lab::Lab::open();
                for (path, script) in part {
                    eprintln!("{}", path.display());
                    lab.play(script);
                }
            });
        }
    });
}

#[test]
fn chance_leaves_the_front_in_order() {
    let lab = std::sync::Mutex::new(lab::Lab::open());
    proptest!(ProptestConfig::with_cases(64), |(script in prop::collection::vec(any::<u8>(), 0..400))| {
        lab.lock().expect("no panic").play(&script);
    });
}
