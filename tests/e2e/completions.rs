//! What shells complete.

use std::process::Command;

#[test]
fn every_shell_is_told_what_there_is_to_complete() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Command::new(env!("CARGO_BIN_EXE_rollcall"))
            .args(["completions", shell])
            .output()
            .expect("runs");
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8(output.stdout).expect("text");
        for word in ["login", "presence", "rotate-key", "password-file"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    // What bash makes of it.
    let script = "source <(\"$1\" completions bash); COMP_WORDS=(rollcall pres); COMP_CWORD=1; \
                  _rollcall rollcall pres rollcall; echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["-c", script, "bash", env!("CARGO_BIN_EXE_rollcall")])
        .output()
        .expect("bash");
    let reply = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(reply.trim(), "presence", "{output:?}");
}
