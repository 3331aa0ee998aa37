//! Nothing that can be asked for, and nothing that is announced, is missing from the tables.

use std::collections::BTreeSet;

use prost_reflect::DescriptorPool;

use super::read;
use super::step::{Step, parse};
use crate::golden;
use crate::rest::send;
use crate::world::World;

const REST: [&str; 6] = ["health", "users", "groups", "things", "bootstrap", "sdk"];
const GRPC: [&str; 5] = ["authority", "users", "groups", "things", "bootstrap"];
const PRESENCE: [&str; 2] = ["presence.txt", "presence_extended.txt"];

fn steps(folder: &str, tables: &[&str]) -> Vec<Step> {
    let texts = tables.iter().map(|it| read(&format!("{folder}/{it}.txt")));
    texts.flat_map(|text| parse(&text)).collect()
}

/// Whether a path is one of a description, such as `/users/{id}`.
fn is_of(path: &str, template: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let is_same = |(part, of): (&str, &str)| part == of || of.starts_with('{');
    path.split('/').count() == template.split('/').count()
        && path.split('/').zip(template.split('/')).all(is_same)
}

#[test]
fn every_request_over_rest_is_in_a_table_and_succeeds_there() {
    let world = World::start();
    let steps = steps("rest", &REST);
    let mut missing = Vec::new();
    for service in ["users", "things", "bootstrap"] {
        let address = world.listener(&format!("http.{service}"));
        let document = send(address, "GET /openapi.json", &[], b"").json();
        let paths = document["paths"].as_object().expect("paths");
        for (template, operations) in paths {
            for method in operations.as_object().expect("operations").keys() {
                let method = method.to_uppercase();
                let asks = |step: &Step| {
                    let (asked, path) = step.what.split_once(' ').expect("a path");
                    step.service == service && asked == method && is_of(path, template)
                };
                // Which of those it is, `/users/profile` or `/users/{id}`, is told by the more exact one.
                let exact = |step: &Step| {
                    let (_, path) = step.what.split_once(' ').expect("a path");
                    let path = path.split('?').next().unwrap_or_default();
                    template == path || !paths.contains_key(path)
                };
                let succeeds = |step: &Step| step.status.starts_with('2');
                let found = steps.iter().any(|it| asks(it) && exact(it) && succeeds(it));
                if !found {
                    missing.push(format!("{service} {method} {template}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_call_over_grpc_is_in_a_table_and_succeeds_there() {
    let pool = DescriptorPool::decode(rollcall_grpc::DESCRIPTORS).expect("descriptions");
    let steps = steps("grpc", &GRPC);
    let asked: BTreeSet<&str> = steps
        .iter()
        .filter(|step| step.service == "grpc" && step.status == "OK")
        .map(|step| step.what.as_str())
        .collect();
    let services = pool.services().filter(|service| {
        let name = service.full_name();
        // The server itself, presence, and what a stream of others makes bootstrap set aside have tests of their own.
        name.starts_with("mainflux.")
            || (name.starts_with("rollcall.")
                && !name.starts_with("rollcall.v1.")
                && name != "rollcall.bootstrap.v1.SetAside")
    });
    let methods: Vec<String> = services
        .flat_map(|service| {
            let name = service.full_name().to_owned();
            let methods = service.methods();
            let methods = methods.map(move |it| format!("{name}/{}", it.name()));
            methods.collect::<Vec<_>>()
        })
        .collect();
    assert!(methods.len() > 60, "{methods:?}");
    let missing: Vec<&String> = methods
        .iter()
        .filter(|method| !asked.contains(method.as_str()))
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

#[test]
fn a_path_is_found_in_a_description() {
    for (path, template, same) in [
        ("/users/1?limit=1", "/users/{id}", true),
        ("/users", "/users/{id}", false),
        ("/users/1/tags", "/users/{id}/tags", true),
        ("/users/1/tags", "/users/{id}/owner", false),
    ] {
        assert_eq!(is_of(path, template), same, "{path} {template}");
    }
}
