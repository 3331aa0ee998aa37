//! Nothing that can be asked for, and nothing that is announced, is missing from the tables.

use std::collections::BTreeSet;

use super::operations::Operations;
use super::read;
use super::step::{Step, parse};
use crate::golden;
use crate::world::World;

const REST: [&str; 6] = ["health", "users", "groups", "things", "bootstrap", "sdk"];
const GRPC: [&str; 5] = ["authority", "users", "groups", "things", "bootstrap"];
const PRESENCE: [&str; 2] = ["presence.txt", "presence_extended.txt"];

fn steps(folder: &str, tables: &[&str]) -> Vec<Step> {
    let texts = tables.iter().map(|it| read(&format!("{folder}/{it}.txt")));
    texts.flat_map(|text| parse(&text)).collect()
}

#[test]
fn everything_that_can_be_asked_is_in_a_table_and_succeeds_there() {
    let operations = Operations::of(&World::start());
    let steps = [steps("rest", &REST), steps("grpc", &GRPC)].concat();
    let succeeded: BTreeSet<&str> = steps
        .iter()
        .filter(|step| step.status.starts_with('2') || step.status == "OK")
        .filter_map(|step| operations.find(&format!("{} {}", step.service, step.what)))
        .collect();
    let missing: Vec<&str> = operations
        .iter()
        .filter(|operation| !succeeded.contains(operation))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_event_is_caused_over_rest_and_over_grpc() {
    let told = |steps: Vec<Step>, by: fn(&Step) -> bool| -> BTreeSet<(String, String)> {
        let steps = steps.into_iter().filter(by);
        let events = steps.flat_map(|step| step.events);
        events.map(|it| (it.stream, it.operation)).collect()
    };
    let over_rest = told(steps("rest", &REST), |_| true);
    let over_grpc = told(steps("grpc", &GRPC), |step| step.service == "grpc");
    let texts = PRESENCE.map(read);
    let over_mqtt: Vec<Step> = texts.iter().flat_map(|text| parse(text)).collect();
    let over_mqtt = told(over_mqtt, |_| true);
    let mut missing = Vec::new();
    for golden in golden::all() {
        let event = (golden.stream, golden.operation);
        let edges: &[(&str, &BTreeSet<_>)] = match event.0.as_str() {
            "mqtt" => &[("mqtt", &over_mqtt)],
            _ => &[("rest", &over_rest), ("grpc", &over_grpc)],
        };
        for (edge, told) in edges {
            if !told.contains(&event) {
                missing.push(format!("{} {} over {edge}", event.0, event.1));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
