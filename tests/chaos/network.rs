//! Network namespaces: an instance on a machine of its own, as far as its network goes. Where this machine allows none,
//! the proxy has to do.

use std::path::Path;
use std::process::{Command, Stdio};

/// What the names of all begin with; the process follows.
const PREFIX: &str = "rollcall-chaos-";

/// A namespace with one cable to this one.
pub(crate) struct Network {
    name: String,
    /// The end of the cable that is here.
    cable: String,
    /// The address here, and there.
    pub(crate) here: [u8; 4],
    pub(crate) there: [u8; 4],
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

impl Network {
    /// # Errors
    /// Why this machine has none: it takes root, and iproute2.
    pub(crate) fn make(number: usize) -> Result<Self, String> {
        let process = std::process::id();
        let name = format!("{PREFIX}{process}-{number}");
        let cable = format!("rc{process}x{number}");
        let (net, first) = ((process % 256) as u8, 4 * number as u8);
        ip(&["netns", "add", &name])?;
        // From here on it is taken away again.
        let made = Self {
            name,
            cable,
            here: [10, 200, net, first + 1],
            there: [10, 200, net, first + 2],
        };
        let Self { name, cable, .. } = &made;
        let with_length = |it: [u8; 4]| format!("{}/30", std::net::Ipv4Addr::from(it));
        ip(&[
            "link", "add", cable, "type", "veth", "peer", "name", "cable", "netns", name,
        ])?;
        ip(&["addr", "add", &with_length(made.here), "dev", cable])?;
        ip(&["link", "set", cable, "up"])?;
        ip(&[
            "-n",
            name,
            "addr",
            "add",
            &with_length(made.there),
            "dev",
            "cable",
        ])?;
        ip(&["-n", name, "link", "set", "cable", "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(made)
    }

    pub(crate) fn wrapper(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    pub(crate) fn pull_the_plug(&self) {
        ip(&["link", "set", &self.cable, "down"]).expect("down");
    }

    pub(crate) fn plug_in(&self) {
        ip(&["link", "set", &self.cable, "up"]).expect("up");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.cable]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Takes away what games left behind that were killed.
pub(crate) fn sweep() {
    let list = Command::new("ip")
        .args(["netns", "list"])
        .stderr(Stdio::null())
        .output();
    let list = list.map_or(String::new(), |it| {
        String::from_utf8_lossy(&it.stdout).into_owned()
    });
    for name in list.lines().filter_map(|line| line.split(' ').next()) {
        let process = name
            .strip_prefix(PREFIX)
            .and_then(|it| it.split('-').next());
        if process.is_some_and(|it| !Path::new("/proc").join(it).exists()) {
            let _ = ip(&["netns", "del", name]);
        }
    }
}
