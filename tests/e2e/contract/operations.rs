//! All that can be asked of the services, as they describe themselves: `users GET /users/{id}`, `grpc package.Service/Method`.

use prost_reflect::DescriptorPool;

use crate::rest::send;
use crate::world::World;

pub(crate) struct Operations(Vec<String>);

impl Operations {
    pub(crate) fn of(world: &World) -> Self {
        let mut all = Vec::new();
        for service in ["users", "things", "bootstrap"] {
            let address = world.listener(&format!("http.{service}"));
            let document = send(address, "GET /openapi.json", &[], b"").json();
            for (path, operations) in document["paths"].as_object().expect("paths") {
                for method in operations.as_object().expect("operations").keys() {
                    all.push(format!("{service} {} {path}", method.to_uppercase()));
                }
            }
        }
        let pool = DescriptorPool::decode(rollcall_grpc::DESCRIPTORS).expect("descriptions");
        for service in pool.services() {
            let name = service.full_name();
            // The server itself, presence, and what a stream of others makes bootstrap set aside have tests of their own.
            let is_told = name.starts_with("rollcall.")
                && !name.starts_with("rollcall.v1.")
                && name != "rollcall.bootstrap.v1.SetAside";
            if is_told || name.starts_with("mainflux.") {
                let methods = service.methods();
                all.extend(methods.map(|it| format!("grpc {name}/{}", it.name())));
            }
        }
        assert!(all.len() > 120, "{all:#?}");
        Self(all)
    }

    /// Which one a request is, such as `users GET /users/1?limit=1` or `grpc package.Service/Method`.
    pub(crate) fn find(&self, asked: &str) -> Option<&str> {
        let asked = asked.split('?').next().unwrap_or_default();
        let exact = self.0.iter().find(|it| *it == asked);
        let found = exact.or_else(|| self.0.iter().find(|it| is_of(asked, it)));
        found.map(String::as_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Whether a path is one of a description, such as `/users/{id}`.
fn is_of(path: &str, template: &str) -> bool {
    let is_same = |(part, of): (&str, &str)| part == of || of.starts_with('{');
    path.split('/').count() == template.split('/').count()
        && path.split('/').zip(template.split('/')).all(is_same)
}

#[test]
fn a_path_is_found_in_a_description() {
    let all = [
        "users GET /users/{id}",
        "users GET /users/profile",
        "users PATCH /users/{id}/tags",
    ];
    let operations = Operations(all.map(str::to_owned).into());
    for (asked, found) in [
        ("users GET /users/1?limit=1", Some(all[0])),
        ("users GET /users/profile", Some(all[1])),
        ("users PATCH /users/1/tags", Some(all[2])),
        ("users GET /users", None),
        ("users POST /users/1", None),
        ("things GET /users/1", None),
        ("users PATCH /users/1/owner", None),
    ] {
        assert_eq!(operations.find(asked), found, "{asked}");
    }
}
