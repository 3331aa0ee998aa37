//! Tells the program which commit it is built from, and when that was made. Nothing of the build itself, so that the same
//! commit gives the same program; and nothing where there is no repository, or no git.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let (mut commit, mut time) = (String::new(), String::new());
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if is_repository(here) {
        for file in what_a_commit_changes() {
            println!("cargo::rerun-if-changed={}", here.join(file).display());
        }
        commit = git(&["rev-parse", "HEAD"]).unwrap_or_default();
        let format = "--date=format-local:%Y-%m-%dT%H:%M:%SZ";
        time = git(&["show", "-s", "--format=%cd", format, "HEAD"]).unwrap_or_default();
    }
    // No names that begin as those of settings do: cargo hands them to the program that it runs, too.
    println!("cargo::rustc-env=COMMIT_OF_BUILD={commit}");
    println!("cargo::rustc-env=TIME_OF_BUILD={time}");
}

/// Not within one of somebody else's, as where sources are unpacked.
fn is_repository(here: &Path) -> bool {
    let root = git(&["rev-parse", "--show-toplevel"]);
    let root = root.and_then(|root| Path::new(&root).canonicalize().ok());
    root.is_some() && root == here.canonicalize().ok()
}

/// Files that are there: one that is not would have this run with every build.
fn what_a_commit_changes() -> Vec<PathBuf> {
    let file = |name: &str| {
        let path = git(&["rev-parse", "--git-path", name])?;
        Some(PathBuf::from(path)).filter(|path| path.exists())
    };
    // Every move of HEAD adds a line to its log; where no log is kept, branches are looked at themselves.
    if let Some(log) = file("logs/HEAD") {
        return vec![log];
    }
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    let names = ["HEAD", "packed-refs"].into_iter().map(str::to_owned);
    names.chain(branch).filter_map(|name| file(&name)).collect()
}

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).env("TZ", "UTC").output();
    let output = output.ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned())
}
