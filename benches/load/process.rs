//! Child processes that end with us, and what `/proc` says of a process.

use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Linux counts CPU time for user space in hundredths of a second, whatever the kernel's own clock.
const MICROS_PER_TICK: u64 = 10_000;

/// A child that is killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self(child))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits for the first line of the child's stdout that holds `word`.
    pub(crate) fn await_stdout(&mut self, word: &'static str) -> Result<String> {
        await_line(self.0.stdout.take().context("stdout is not piped")?, word)
    }

    /// Waits for the first line of the child's stderr that holds `word`.
    pub(crate) fn await_stderr(&mut self, word: &'static str) -> Result<String> {
        await_line(self.0.stderr.take().context("stderr is not piped")?, word)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the child is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads on to the end in a thread of its own, so that the child never waits for us to read.
fn await_line(output: impl Read + Send + 'static, word: &'static str) -> Result<String> {
    let (sender, found) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line.contains(word) {
                // Nobody listens for the second one.
                let _ = sender.send(line);
            }
        }
    });
    match found.recv_timeout(START_TIMEOUT) {
        Ok(line) => Ok(line),
        Err(mpsc::RecvTimeoutError::Disconnected) => bail!("it ended before it said \"{word}\""),
        Err(mpsc::RecvTimeoutError::Timeout) => bail!("no \"{word}\" within {START_TIMEOUT:?}"),
    }
}

/// CPU time spent so far by a broker and by this tool, in microseconds.
#[derive(Clone, Copy)]
pub(crate) struct CpuTime {
    pub(crate) broker: u64,
    pub(crate) tool: u64,
}

impl CpuTime {
    pub(crate) fn now(broker: u32) -> Result<Self> {
        Ok(Self {
            broker: cpu_micros(&broker.to_string())?,
            tool: cpu_micros("self")?,
        })
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            broker: self.broker - earlier.broker,
            tool: self.tool - earlier.tool,
        }
    }
}

pub(crate) fn cpu_micros(pid: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name may hold anything, spaces and brackets too: count fields from behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut user_and_system = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>);
    match (user_and_system.next(), user_and_system.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok((user + system) * MICROS_PER_TICK),
        _ => bail!("{path} holds no CPU times"),
    }
}

/// Resident memory of a process.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The most resident memory that a process has had.
pub(crate) fn most_resident_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, key: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB"))
        .with_context(|| format!("{path} holds no {key}"))?;
    Ok(kib.parse::<u64>()? * 1024)
}
