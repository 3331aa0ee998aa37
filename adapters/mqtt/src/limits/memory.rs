//! Memory: beyond a mark nothing new is taken on, before the kernel ends the process and everybody with it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytesize::ByteSize;
use metrics::Gauge;
use serde::{Deserialize, Deserializer};

use crate::metrics::level;

/// Work is taken on again below this part of the mark, in percent: otherwise it would flicker around it.
const RELIEF: u64 = 95;

/// Where "too much" begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryMark {
    Off,
    Bytes(u64),
    /// Of what the process may have: of its control group, or else of the machine.
    Percent(u8),
}

impl<'de> Deserialize<'de> for MemoryMark {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let text = text.trim();
        let wrong = || {
            serde::de::Error::custom(
                "expected a size such as \"2GiB\", a part of all such as \"80%\", or \"0\"",
            )
        };
        if let Some(percent) = text.strip_suffix('%') {
            let percent: u8 = percent.trim().parse().map_err(|_| wrong())?;
            return match percent {
                0 => Ok(Self::Off),
                1..=100 => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            };
        }
        match text.parse::<ByteSize>().map_err(|_| wrong())?.as_u64() {
            0 => Ok(Self::Off),
            bytes => Ok(Self::Bytes(bytes)),
        }
    }
}

pub(crate) struct Memory {
    /// Bytes.
    mark: Option<u64>,
    short: AtomicBool,
    used: Gauge,
    is_short: Gauge,
}

impl Memory {
    pub(crate) fn new(mark: MemoryMark) -> Self {
        let mark = match mark {
            MemoryMark::Off => None,
            MemoryMark::Bytes(bytes) => Some(bytes),
            MemoryMark::Percent(percent) => {
                let all = allowed(|path| std::fs::read_to_string(path).ok());
                if all.is_none() {
                    tracing::warn!("cannot find how much memory there is: no mark is kept");
                }
                all.map(|all| all / 100 * u64::from(percent))
            }
        };
        let memory = Self {
            mark,
            short: AtomicBool::new(false),
            used: level("memory_bytes", "Resident memory of the process"),
            is_short: level(
                "memory_short",
                "1 while memory is beyond mqtt.limits.memory_high_water and nothing new is taken on, else 0",
            ),
        };
        level(
            "memory_high_water_bytes",
            "Beyond this nothing new is taken on; 0 is no such mark",
        )
        .set(mark.unwrap_or(0) as f64);
        memory.look();
        memory
    }

    /// Whether nothing new is to be taken on.
    #[inline]
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Looks at the process.
    pub(crate) fn look(&self) {
        let status = std::fs::read_to_string("/proc/self/status");
        if let Some(used) = status.ok().as_deref().and_then(resident) {
            self.note(used);
        }
    }

    fn note(&self, used: u64) {
        self.used.set(used as f64);
        let Some(mark) = self.mark else { return };
        let was = self.is_short();
        let bound = if was { mark / 100 * RELIEF } else { mark };
        let short = used > bound;
        if short == was {
            return;
        }
        self.short.store(short, Ordering::Relaxed);
        self.is_short.set(f64::from(u8::from(short)));
        match short {
            true => tracing::warn!(used, mark, "memory is short: nothing new is taken on"),
            false => tracing::info!(used, mark, "memory is no longer short"),
        }
    }
}

/// Bytes, from `/proc/self/status`.
fn resident(status: &str) -> Option<u64> {
    kib(status, "VmRSS:")
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let count: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(count * 1024)
}

/// The bytes that the process may have: the least of what its control groups and the machine allow.
fn allowed(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| kib(&text, "MemTotal:"));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let mut least = machine;
    for line in groups.lines() {
        // Version 2: "0::/path"; version 1: "4:memory:/path".
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // A group is bound by those above it too. Inside a container the upper ones cannot be seen.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let file: PathBuf = Path::new(root).join(group).join(file);
            let limit = read(&file).and_then(|text| text.trim().parse().ok());
            least = least.into_iter().chain(limit).min();
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn mark(text: &str) -> Option<MemoryMark> {
        let text = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
        MemoryMark::deserialize(text).ok()
    }

    #[test]
    fn a_mark_is_a_size_or_a_part() {
        assert_eq!(mark("80%"), Some(MemoryMark::Percent(80)));
        assert_eq!(mark("2GiB"), Some(MemoryMark::Bytes(2 * GIB)));
        for off in ["0", "0%", "0B"] {
            assert_eq!(mark(off), Some(MemoryMark::Off), "{off}");
        }
        for wrong in ["", "much", "101%", "-1%", "80 percent"] {
            assert_eq!(mark(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_narrowest_bound_counts() {
        let meminfo = "MemTotal:       8388608 kB\nMemFree: 1 kB\n";
        let with = |files: &'static [(&str, &str)]| {
            allowed(|path| {
                let found = files.iter().find(|(name, _)| Path::new(name) == path);
                let text = found.map(|(_, text)| (*text).to_owned());
                text.or_else(|| (path == Path::new("/proc/meminfo")).then(|| meminfo.to_owned()))
            })
        };
        assert_eq!(with(&[]), Some(8 * GIB));
        assert_eq!(
            with(&[
                ("/proc/self/cgroup", "0::/a/b\n"),
                ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
                ("/sys/fs/cgroup/a/memory.max", "1073741824\n"),
            ]),
            Some(GIB)
        );
        assert_eq!(
            with(&[
                ("/proc/self/cgroup", "0::/\n"),
                ("/sys/fs/cgroup/memory.max", "2147483648\n"),
            ]),
            Some(2 * GIB)
        );
        assert_eq!(
            with(&[
                ("/proc/self/cgroup", "5:cpu:/x\n4:memory:/x\n"),
                (
                    "/sys/fs/cgroup/memory/x/memory.limit_in_bytes",
                    "3221225472\n"
                ),
                (
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n"
                ),
            ]),
            Some(3 * GIB)
        );
    }

    #[test]
    fn what_is_used_is_found() {
        let status = "Name:\trollcall\nVmHWM:\t    9000 kB\nVmRSS:\t    8192 kB\n";
        assert_eq!(resident(status), Some(8 << 20));
        assert_eq!(resident("Name:\trollcall\n"), None);
    }

    #[test]
    fn shortage_ends_well_below_the_mark() {
        let memory = Memory::new(MemoryMark::Bytes(1000 * GIB));
        let after = |used: u64| {
            memory.note(used * GIB);
            memory.is_short()
        };
        assert_eq!(
            [after(999), after(1001), after(999), after(960)],
            [false, true, true, true]
        );
        assert_eq!([after(940), after(999)], [false, false]);
    }
}
