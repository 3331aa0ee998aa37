//! Filters with wildcards, by their levels. Levels without a fork between them are one node, so neither memory
//! nor a search grows with the depth of filters that nobody shares.

use std::collections::HashMap;

use super::Here;

#[derive(Debug, Default)]
pub(super) struct Node {
    /// The levels between the one that leads to it and its own, each behind its slash.
    label: Box<str>,
    /// Those whose filter ends here.
    here: Here,
    children: HashMap<Box<str>, Node>,
}

impl Node {
    /// Changes what is at the filter, and leaves no empty nodes behind.
    pub(super) fn change(&mut self, filter: &str, change: impl FnOnce(&mut Here) -> bool) -> bool {
        let (level, rest) = split(filter);
        if !self.children.contains_key(level) {
            let child = Self {
                label: rest.into(),
                ..Self::default()
            };
            self.children.insert(level.into(), child);
        }
        let child = self
            .children
            .get_mut(level)
            .expect("invariant: just inserted");
        let shared = shared(&child.label, rest);
        if shared < child.label.len() {
            child.fork(shared);
        }
        let result = match rest[shared..].strip_prefix('/') {
            Some(below) => child.change(below, change),
            None => change(&mut child.here),
        };
        if child.here.is_empty() {
            match child.children.len() {
                0 => drop(self.children.remove(level)),
                1 => child.join(),
                _ => {}
            }
        }
        result
    }

    /// What is at the filter.
    pub(super) fn at(&self, filter: &str) -> Option<&Here> {
        let (level, rest) = split(filter);
        let child = self.children.get(level)?;
        match rest.strip_prefix(&*child.label)? {
            "" => Some(&child.here),
            rest => child.at(rest.strip_prefix('/')?),
        }
    }

    /// Collects the filters that match a topic, or the rest of one. Wildcards do not reach a first level that
    /// begins with `$` [MQTT5-4.7.2-1].
    pub(super) fn search<'a>(
        &'a self,
        topic: Option<&str>,
        wildcards: bool,
        found: &mut Vec<&'a Here>,
    ) {
        if wildcards && let Some(rest) = self.children.get("#") {
            // Also the level above: `sport/#` matches `sport`.
            found.push(&rest.here);
        }
        let Some(topic) = topic else {
            found.push(&self.here);
            return;
        };
        let (level, rest) = split(topic);
        if wildcards && let Some(any) = self.children.get("+") {
            any.follow(rest, found);
        }
        if let Some(child) = self.children.get(level) {
            child.follow(rest, found);
        }
    }

    /// Goes on along the label with the rest of a topic: levels, each behind its slash.
    fn follow<'a>(&'a self, mut topic: &str, found: &mut Vec<&'a Here>) {
        let mut label = &*self.label;
        while let Some(wanted) = label.strip_prefix('/') {
            let (wanted, more) = split(wanted);
            if wanted == "#" {
                found.push(&self.here);
                return;
            }
            let Some(level) = topic.strip_prefix('/') else {
                return;
            };
            let (level, rest) = split(level);
            if wanted != "+" && wanted != level {
                return;
            }
            (label, topic) = (more, rest);
        }
        self.search(topic.strip_prefix('/'), true, found);
    }

    /// Ends the label at `place`; what was here moves below.
    fn fork(&mut self, place: usize) {
        let (level, rest) = split(&self.label[place + 1..]);
        let below = Self {
            label: rest.into(),
            here: std::mem::take(&mut self.here),
            children: std::mem::take(&mut self.children),
        };
        self.children.insert(level.into(), below);
        self.label = self.label[..place].into();
    }

    /// Takes the place of the only child.
    fn join(&mut self) {
        for (level, below) in std::mem::take(&mut self.children) {
            self.label = format!("{}/{level}{}", self.label, below.label).into();
            self.here = below.here;
            self.children = below.children;
        }
    }

    /// All nodes below.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.children.values().map(|child| 1 + child.nodes()).sum()
    }
}

/// The first level, and the rest from its slash on.
fn split(levels: &str) -> (&str, &str) {
    let end = memchr::memchr(b'/', levels.as_bytes());
    levels.split_at(end.unwrap_or(levels.len()))
}

/// The length of the levels that both begin with.
fn shared(one: &str, other: &str) -> usize {
    let pairs = one.bytes().zip(other.bytes());
    let same = pairs.take_while(|(one, other)| one == other).count();
    let ends = |levels: &str| levels.as_bytes().get(same).is_none_or(|&it| it == b'/');
    if ends(one) && ends(other) {
        return same;
    }
    memchr::memrchr(b'/', &one.as_bytes()[..same]).unwrap_or(0)
}
