//! Looks for secrets where there must be none: in logs, databases, streams, and what a server says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use aho_corasick::AhoCorasick;
use serde_json::Value;

/// A place and what is in it.
pub(crate) type Place = (String, Vec<u8>);

/// Every secret that was used in a world.
#[derive(Default)]
pub(crate) struct Secrets(Mutex<BTreeSet<Vec<u8>>>);

impl Secrets {
    pub(crate) fn add(&self, secret: impl Into<Vec<u8>>) {
        let secret = secret.into();
        assert!(secret.len() >= 8, "found by chance: {secret:?}");
        self.0.lock().expect("lock").insert(secret);
    }

    /// Keys and passwords in what the command line or a service has answered.
    pub(crate) fn add_from(&self, answer: &Value) {
        match answer {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text)
                            if matches!(
                                &**name,
                                "key"
                                    | "secret"
                                    | "password"
                                    | "token"
                                    | "thing_key"
                                    | "external_key"
                                    | "client_key"
                            ) && !text.is_empty() =>
                        {
                            self.add(&**text);
                        }
                        value => self.add_from(value),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.add_from(value)),
            _ => {}
        }
    }

    /// What a server keeps for itself in its folder of secrets.
    pub(crate) fn add_folder(&self, folder: &Path) {
        for (name, content) in files(folder) {
            match serde_json::from_slice(&content) {
                Ok(value) if name.ends_with(".json") => self.add_from(&value),
                _ => self.add(content.trim_ascii()),
            }
        }
    }

    /// Passwords in what a server says at its first start.
    pub(crate) fn add_banner(&self, banner: &[String]) {
        for line in banner {
            if let Some((_, password)) = line.split_once("password ") {
                self.add(password);
            }
        }
    }

    /// Where one of them is.
    pub(crate) fn find_in(&self, places: &[Place]) -> Vec<String> {
        let secrets = self.0.lock().expect("lock");
        let finder = AhoCorasick::new(&*secrets).expect("a finder");
        let found = places.iter().filter_map(|(place, content)| {
            let hit = finder.find(content)?;
            let from = hit.start().saturating_sub(60);
            let before = String::from_utf8_lossy(&content[from..hit.start()]).into_owned();
            Some(format!("{place}, after {before:?}"))
        });
        found.collect()
    }
}

/// All files in a folder and below.
pub(crate) fn files(folder: &Path) -> Vec<Place> {
    let mut places = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return places;
    };
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            places.extend(files(&path));
        } else if path.is_file() {
            // It may be gone by now, as SQLite's own files come and go.
            let content = fs::read(&path).unwrap_or_default();
            places.push((path.display().to_string(), content));
        }
    }
    places
}

#[test]
fn a_secret_is_found_wherever_it_is() {
    let secrets = Secrets::default();
    secrets.add_from(&serde_json::json!({
        "things": [{ "id": "harmless", "key": "a secret key", "name": "lamp" }],
        "admin": { "identity": "somebody", "password": "a good password" },
    }));
    secrets.add_banner(&["The administrator is somebody, password the-printed-one".to_owned()]);
    let find = |content: &[u8]| secrets.find_in(&[("there".to_owned(), content.to_vec())]);
    for hidden in [
        &b"a secret key"[..],
        b"{\"key\":\"a secret key\"}",
        b"\0\xff\xfea secret key\0",
        b"cannot sign in with a good password",
        b"the-printed-one",
    ] {
        let found = find(hidden);
        assert_eq!(found.len(), 1, "{hidden:?}");
        assert!(found[0].contains("there"));
    }
    assert_eq!(find(b"harmless lamp of somebody, a secret, key"), [""; 0]);
}
