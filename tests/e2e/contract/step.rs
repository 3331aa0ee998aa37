//! One step of a table: a request, its answer, and the events it causes.

#[derive(Clone, Debug, Default)]
pub(super) struct Step {
    pub(super) line: usize,
    /// `users`, `things`, `bootstrap` over REST, `grpc` or `mqtt`.
    pub(super) service: String,
    /// Method and path; service and method; a packet and the name of a client.
    pub(super) what: String,
    /// `bare`, `as TOKEN`, `key KEY`.
    pub(super) who: String,
    pub(super) headers: Vec<String>,
    pub(super) body: String,
    /// A status of HTTP, or a code of gRPC.
    pub(super) status: String,
    pub(super) expected_headers: Vec<String>,
    /// Empty for no body, `*` for any.
    pub(super) expected: String,
    pub(super) events: Vec<Expected>,
}

/// An event that is due.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) stream: String,
    pub(super) operation: String,
    /// If there are any: all fields that are there of those that may be missing; and others with their values.
    pub(super) fields: Vec<(String, Option<String>)>,
}

pub(super) fn parse(text: &str) -> Vec<Step> {
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.trim_end()))
        .filter(|(_, line)| !line.starts_with('#'))
        .collect();
    let steps = lines.split(|(_, line)| line.is_empty());
    let steps = steps.filter(|step| !step.is_empty());
    steps.map(parse_step).collect()
}

fn parse_step(lines: &[(usize, &str)]) -> Step {
    let (line, head) = lines[0];
    let (service, rest) = head.split_once(' ').expect("a service");
    let words = if service == "grpc" { 1 } else { 2 };
    let (end, _) = rest
        .match_indices(' ')
        .nth(words - 1)
        .unwrap_or_else(|| panic!("line {line}: who?"));
    let mut step = Step {
        line,
        service: service.to_owned(),
        what: rest[..end].to_owned(),
        who: rest[end + 1..].to_owned(),
        ..Step::default()
    };
    for (line, text) in &lines[1..] {
        let is_body = text.starts_with(['{', '[']);
        let is_asked = !step.status.is_empty();
        if let Some(event) = text.strip_prefix("-> ") {
            step.events.push(parse_event(event));
        } else if let Some(status) = text.strip_prefix("=> ") {
            assert!(!is_asked, "line {line}: two answers");
            let (status, any) = status.split_once(' ').unwrap_or((status, ""));
            step.status = status.to_owned();
            step.expected = any.to_owned();
        } else {
            match (is_asked, is_body) {
                (false, true) => step.body = (*text).to_owned(),
                (false, false) => step.headers.push((*text).to_owned()),
                (true, true) => step.expected = (*text).to_owned(),
                (true, false) => step.expected_headers.push((*text).to_owned()),
            }
        }
    }
    assert!(!step.status.is_empty(), "line {line}: no answer");
    step
}

/// `stream operation`, then fields with or without a value, with semicolons between.
fn parse_event(text: &str) -> Expected {
    let mut words = text.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (stream, operation, fields) = (word(), word(), word());
    let fields = fields.split("; ").filter(|field| !field.is_empty());
    Expected {
        stream,
        operation,
        fields: fields
            .map(|field| match field.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (field.to_owned(), None),
            })
            .collect(),
    }
}
