//! Whoever asks for a reset gets a mail, from a server that speaks SMTP, and gets in again by it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollcall_domain::entity::{Metadata, Status};
use rollcall_domain::event::Event;
use rollcall_domain::groups::PolicyStore;
use rollcall_domain::identity::{GroupId, Secret};
use rollcall_domain::memory::{self, Events};
use rollcall_domain::users::{Inline, NewUser, Registration, Settings, Tokens, Users};
use rollcall_mail::{Config, Doorbell, Encryption, Postman};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// What the server says to the message, attempt by attempt; then it takes all.
type Answers = Arc<Mutex<Vec<&'static str>>>;

/// An SMTP server that takes mails.
struct Sink {
    port: u16,
    mails: mpsc::UnboundedReceiver<Vec<String>>,
    answers: Answers,
}

impl Sink {
    async fn start(mut answers: Vec<&'static str>) -> Self {
        answers.reverse();
        let answers: Answers = Arc::new(Mutex::new(answers));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (take, mails) = mpsc::unbounded_channel();
        let left = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(converse(socket, take.clone(), Arc::clone(&answers)));
            }
        });
        Self {
            port,
            mails,
            answers: left,
        }
    }

    /// All that a client has said until its mail was taken.
    async fn mail(&mut self) -> Vec<String> {
        let mail = tokio::time::timeout(Duration::from_secs(30), self.mails.recv()).await;
        mail.expect("a mail in time").expect("a server")
    }
}

async fn converse(
    socket: TcpStream,
    take: mpsc::UnboundedSender<Vec<String>>,
    answers: Answers,
) -> Option<()> {
    let mut socket = BufReader::new(socket);
    let mut said = Vec::new();
    let mut in_message = false;
    socket.write_all(b"220 sink\r\n").await.ok()?;
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        said.push(line.clone());
        let answer = match line.split(' ').next()? {
            "." if in_message => {
                in_message = false;
                let answer = answers.lock().expect("lock").pop();
                if answer.is_none() {
                    take.send(std::mem::take(&mut said)).ok()?;
                }
                answer.unwrap_or("250 taken")
            }
            _ if in_message => continue,
            "EHLO" => "250-sink\r\n250 AUTH PLAIN",
            "AUTH" => "235 welcome",
            "DATA" => {
                in_message = true;
                "354 go on"
            }
            "QUIT" => return None,
            _ => "250 fine",
        };
        let answer = format!("{answer}\r\n");
        socket.write_all(answer.as_bytes()).await.ok()?;
    }
}

struct House {
    users: Arc<Users>,
    events: Events,
    _stop: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

fn settings() -> Settings {
    Settings {
        registration: Registration::Open,
        password_rule: "^.{8,}$".parse().expect("a rule"),
        access_token_duration: Duration::from_secs(60),
        refresh_token_duration: Duration::from_secs(60),
        reset_token_duration: Duration::from_secs(60),
        reset_endpoint: "/reset-request".into(),
        reset_hosts: vec!["http://localhost".into()],
        max_guesses: 10,
        max_guesses_in_all: 10,
        reset_mail_timeout: Duration::from_secs(60),
    }
}

fn config(port: u16) -> Config {
    Config {
        host: "127.0.0.1".into(),
        port,
        encryption: Encryption::None,
        ca: "".into(),
        user: "postman".into(),
        password: Secret::new("of the postman"),
        password_file: "".into(),
        from: "rollcall <noreply@example.com>".into(),
        template: "".into(),
        timeout: Duration::from_secs(5),
        give_up_after: Duration::from_secs(60),
    }
}

/// With one user, ada@example.com.
async fn house(config: &Config) -> House {
    let events = Events::default();
    let groups = Arc::new(memory::Groups::<GroupId>::new(events.clone()));
    let store = memory::Users::new(events.clone(), Arc::clone(&groups));
    let folder = tempfile::tempdir().expect("a folder");
    let mailer = rollcall_mail::open(config, &folder.path().join("mails")).expect("a mailer");
    let bell = Doorbell::default();
    let users = Arc::new(Users::new(
        Arc::new(store),
        groups as Arc<dyn PolicyStore<GroupId>>,
        Arc::new(Inline),
        Tokens::new(b"a key"),
        Arc::new(bell.clone()),
        settings(),
    ));
    let new = NewUser {
        name: "Ada".into(),
        tags: Vec::new(),
        owner: None,
        identity: "ada@example.com".into(),
        secret: Secret::new("forgotten"),
        metadata: Metadata::new(),
        status: Status::Enabled,
        admin: false,
    };
    users.create(None, new).await.expect("made");
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(Postman::new(Arc::clone(&users), mailer, bell).run(stopped));
    House {
        users,
        events,
        _stop: stop,
        _folder: folder,
    }
}

impl House {
    async fn ask(&self) {
        let asked = self
            .users
            .request_reset("ada@example.com", "http://localhost/")
            .await;
        asked.expect("asked");
    }

    async fn reset(&self, token: &Secret) -> bool {
        let password = Secret::new("a new password");
        let reset = self.users.reset_secret(token, &password, &password).await;
        reset.is_ok()
    }

    fn operations(&self) -> Vec<String> {
        let value = |event: &Event| event.fields[0].1.clone().into_owned();
        self.events.all().iter().map(value).collect()
    }
}

/// The token in a mail; lines of quoted-printable text are put together.
fn token(mail: &[String]) -> Secret {
    let text = mail.join("\n").replace("=\n", "").replace("=3D", "=");
    let (_, rest) = text
        .split_once("http://localhost/reset-request?token=")
        .expect("a link");
    Secret::new(rest.split_whitespace().next().expect("a token"))
}

#[tokio::test]
async fn a_mail_goes_over_smtp_and_its_link_opens_the_door_once() {
    let mut sink = Sink::start(vec![]).await;
    let house = house(&config(sink.port)).await;
    house.ask().await;
    let mail = sink.mail().await;
    let has = |line: &str| mail.iter().any(|it| it == line);
    assert!(has("MAIL FROM:<noreply@example.com>"), "{mail:#?}");
    assert!(has("RCPT TO:<ada@example.com>"), "{mail:#?}");
    assert!(has("Subject: Choose a new password"), "{mail:#?}");
    // \0postman\0of the postman
    let login = "AUTH PLAIN AHBvc3RtYW4Ab2YgdGhlIHBvc3RtYW4=";
    assert!(has(login), "{mail:#?}");
    let token = token(&mail);
    assert!(house.reset(&token).await);
    assert!(!house.reset(&token).await);
    let password = Secret::new("a new password");
    let signed_in = house.users.issue_token("ada@example.com", &password).await;
    assert!(signed_in.is_ok());
    // It is told that a mail was sent once it was taken, which the server does first.
    let told = async {
        while !house
            .operations()
            .contains(&"user.send_password_reset".to_owned())
        {
            tokio::task::yield_now().await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(30), told).await;
    told.expect("in time");
}

#[tokio::test]
async fn a_mail_that_is_not_taken_now_comes_again_with_another_link() {
    let mut sink = Sink::start(vec!["451 try again", "421 busy"]).await;
    let house = house(&config(sink.port)).await;
    house.ask().await;
    let mail = sink.mail().await;
    assert!(house.reset(&token(&mail)).await);
}

#[tokio::test]
async fn a_mail_that_is_refused_is_not_tried_again() {
    let mut sink = Sink::start(vec!["550 no such address"]).await;
    let house = house(&config(sink.port)).await;
    house.ask().await;
    let refused = async {
        while !sink.answers.lock().expect("lock").is_empty() {
            tokio::task::yield_now().await;
        }
        while house
            .users
            .send_resets(&Never)
            .await
            .expect("read")
            .is_some()
        {
            tokio::task::yield_now().await;
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(30), refused).await;
    refused.expect("in time");
    // Another one is taken.
    house.ask().await;
    assert!(house.reset(&token(&sink.mail().await)).await);
    let sent = house.operations();
    let sent = sent.iter().filter(|it| *it == "user.generate_reset_token");
    assert_eq!(sent.count(), 2);
}

struct Never;

#[async_trait::async_trait]
impl rollcall_domain::users::Mailer for Never {
    async fn send(
        &self,
        _: &rollcall_domain::users::Mail,
    ) -> Result<(), rollcall_domain::users::MailError> {
        Err(rollcall_domain::users::MailError::Later("not here".into()))
    }
}

#[tokio::test]
async fn nothing_goes_in_clear_to_a_server_that_is_to_encrypt() {
    let mut sink = Sink::start(vec![]).await;
    for encryption in [Encryption::Starttls, Encryption::Tls] {
        let config = Config {
            encryption,
            timeout: Duration::from_secs(1),
            ..config(sink.port)
        };
        let folder = tempfile::tempdir().expect("a folder");
        let mailer = rollcall_mail::open(&config, folder.path()).expect("a mailer");
        let mail = rollcall_domain::users::Mail {
            to: "ada@example.com".into(),
            name: "Ada".into(),
            link: Secret::new("http://localhost"),
            good_for: Duration::from_secs(60),
        };
        let sent = mailer.send(&mail).await;
        assert!(
            matches!(sent, Err(rollcall_domain::users::MailError::Later(_))),
            "{sent:?}"
        );
    }
    assert!(sink.mails.try_recv().is_err());
}

#[tokio::test]
async fn without_a_server_mails_are_files_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let none = Config {
        host: String::new(),
        ..config(1)
    };
    let house = house(&none).await;
    house.ask().await;
    let folder = house._folder.path().join("mails");
    let written = async {
        loop {
            let mut files = std::fs::read_dir(&folder).expect("a folder");
            let mail = files.find_map(|file| {
                let path = file.expect("a file").path();
                (path.extension()? == "eml").then_some(path)
            });
            if let Some(path) = mail {
                return path;
            }
            tokio::task::yield_now().await;
        }
    };
    let path = tokio::time::timeout(Duration::from_secs(30), written).await;
    let path = path.expect("in time");
    let mode = |path: &std::path::Path| {
        let metadata = std::fs::metadata(path).expect("there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode(&path), mode(&folder)), (0o600, 0o700));
    let text = std::fs::read_to_string(&path).expect("text");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(house.reset(&token(&lines)).await);
}
