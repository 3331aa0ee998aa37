//! Steps over MQTT 5: `CONNECT name as THING KEY`, `PUBLISH name to TOPIC`, `SUBSCRIBE name to FILTER`, which are
//! answered by a reason code, and `DISCONNECT name with a goodbye` or `without a goodbye`, after which it is `gone`.

use crate::client::{Client, Hello};
use crate::world::Thing;

use super::step::Step;
use super::{Answer, Play};

impl Play<'_> {
    pub(super) fn over_mqtt(&mut self, step: &Step, who: &str) -> Answer {
        let (packet, name) = step.what.split_once(' ').expect("a client");
        let (word, rest) = who.split_once(' ').expect("who, where or how");
        let status = match (packet, word) {
            ("CONNECT", "as") => self.connect(name, rest).to_string(),
            ("PUBLISH", "to") => self.client(name).publish(rest, b"on", 1).to_string(),
            ("SUBSCRIBE", "to") => self.client(name).subscribe(&[(rest, 1)])[0].to_string(),
            ("DISCONNECT", goodbye) => {
                let client = self.clients.remove(name).expect("a client");
                match goodbye {
                    "with" => client.disconnect(),
                    _ => client.reset(),
                }
                "gone".to_owned()
            }
            _ => panic!("line {}: {packet} {word}?", step.line),
        };
        Answer {
            status,
            body: String::new(),
            whole: None,
        }
    }

    fn connect(&mut self, name: &str, credentials: &str) -> u8 {
        let (id, key) = credentials.split_once(' ').expect("a key");
        self.world.secrets.add(key);
        let (id, key) = (id.to_owned(), key.to_owned());
        let hello = Hello::of(&Thing { id, key }, name).five();
        let (client, connack) = Client::connect(self.world.mqtt(), hello);
        if connack.code == 0 {
            self.clients.insert(name.to_owned(), client);
        }
        connack.code
    }

    fn client(&mut self, name: &str) -> &mut Client {
        self.clients.get_mut(name).expect("a client")
    }
}
