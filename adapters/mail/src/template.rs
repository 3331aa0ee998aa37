//! What a mail says.

use std::path::Path;

use lettre::Message;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Mailboxes};
use rollcall_domain::users::{Mail, MailError};

use crate::OpenError;

const USUAL: &str = "Hello {{name}},

somebody, you perhaps, wants to choose a new password for {{to}}. This link lets you do so, once, within {{good_for}}:

{{link}}

If that was not you, there is nothing to do: your password stays as it is.
";
const SUBJECT: &str = "Choose a new password";
/// Bytes of a template.
const MAX: usize = 64 * 1024;

/// A text with `{{to}}`, `{{name}}`, `{{link}}` and `{{good_for}}`. A first line `Subject: ...` is the subject.
pub(crate) struct Template {
    subject: String,
    text: String,
}

impl Template {
    pub(crate) fn read(path: &Path) -> Result<Self, OpenError> {
        if path.as_os_str().is_empty() {
            return Ok(Self::parse(USUAL));
        }
        let text = std::fs::read_to_string(path).map_err(|source| OpenError::Read {
            path: path.into(),
            source,
        })?;
        if !text.contains("{{link}}") || text.len() > MAX {
            return Err(OpenError::Template(path.into()));
        }
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let headed = text
            .strip_prefix("Subject: ")
            .and_then(|rest| rest.split_once('\n'));
        let (subject, text) = headed.unwrap_or((SUBJECT, text));
        Self {
            subject: subject.trim_end().to_owned(),
            text: text.trim_start_matches(['\r', '\n']).to_owned(),
        }
    }

    fn fill(&self, mail: &Mail) -> String {
        let name = if mail.name.is_empty() {
            &mail.to
        } else {
            &mail.name
        };
        let good_for = humantime::format_duration(mail.good_for).to_string();
        // In one go: what is put in is not looked at again.
        let mut text = String::new();
        let mut rest = self.text.as_str();
        while let Some((before, behind)) = rest.split_once("{{") {
            text.push_str(before);
            let known = behind.split_once("}}").and_then(|(word, behind)| {
                let value = match word {
                    "to" => mail.to.as_str(),
                    "name" => name,
                    "link" => mail.link.expose(),
                    "good_for" => good_for.as_str(),
                    _ => return None,
                };
                Some((value, behind))
            });
            match known {
                Some((value, behind)) => {
                    text.push_str(value);
                    rest = behind;
                }
                None => {
                    text.push_str("{{");
                    rest = behind;
                }
            }
        }
        text.push_str(rest);
        text
    }
}

/// Makes mails.
pub(crate) struct Letters {
    pub(crate) from: Mailbox,
    pub(crate) template: Template,
}

impl Letters {
    pub(crate) fn write(&self, mail: &Mail) -> Result<Message, MailError> {
        let never = |error: Box<dyn std::error::Error + Send + Sync>| MailError::Never(error);
        let to = mail.to.parse().map_err(|error| never(Box::new(error)))?;
        let to: Mailboxes = Mailbox::new(None, to).into();
        Message::builder()
            .from(self.from.clone())
            .mailbox(lettre::message::header::To::from(to))
            .subject(&self.template.subject)
            .message_id(None)
            .header(ContentType::TEXT_PLAIN)
            .body(self.template.fill(mail))
            .map_err(|error| never(Box::new(error)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rollcall_domain::identity::Secret;

    use super::*;

    fn mail(name: &str) -> Mail {
        Mail {
            to: "a@example.com".into(),
            name: name.into(),
            link: Secret::new("http://localhost/reset-request?token=t"),
            good_for: Duration::from_secs(900),
        }
    }

    #[test]
    fn the_usual_mail_names_user_and_link() {
        let template = Template::read(Path::new("")).expect("the usual one");
        let text = template.fill(&mail("Ada"));
        assert!(text.starts_with("Hello Ada,"), "{text}");
        assert!(text.contains("\nhttp://localhost/reset-request?token=t\n"));
        assert!(text.contains("for a@example.com. ") && text.contains("within 15m:"));
        assert!(!text.contains("{{"));
        assert!(template.fill(&mail("")).starts_with("Hello a@example.com,"));
    }

    #[test]
    fn a_template_has_a_subject_and_its_own_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("email.tmpl");
        std::fs::write(
            &path,
            "Subject: Forgotten?\n\n{{link}} {{other}} {{name}} {{",
        )
        .expect("written");
        let template = Template::read(&path).expect("a template");
        assert_eq!(template.subject, "Forgotten?");
        // What a user is called is not looked at for more.
        let text = template.fill(&mail("{{link}}"));
        assert_eq!(
            text,
            "http://localhost/reset-request?token=t {{other}} {{link}} {{"
        );
        std::fs::write(&path, "without").expect("written");
        assert!(matches!(Template::read(&path), Err(OpenError::Template(_))));
        let none = folder.path().join("none");
        assert!(matches!(Template::read(&none), Err(OpenError::Read { .. })));
    }

    #[test]
    fn who_has_no_address_gets_no_mail_and_adds_no_header() {
        let letters = Letters {
            from: "rollcall <noreply@localhost>".parse().expect("an address"),
            template: Template::parse(USUAL),
        };
        for to in ["wandering-brook", "", "a@b.c\r\nBcc: d@e.f", "a@b.c, d@e.f"] {
            let mail = Mail {
                to: to.into(),
                ..mail("")
            };
            assert!(
                matches!(letters.write(&mail), Err(MailError::Never(_))),
                "{to}"
            );
        }
        let message = letters.write(&mail("Ada")).expect("a mail");
        let text = String::from_utf8(message.formatted()).expect("text");
        assert!(text.contains("\r\nTo: a@example.com\r\n"), "{text}");
        assert!(
            text.contains("Subject: Choose a new password\r\n"),
            "{text}"
        );
    }
}
