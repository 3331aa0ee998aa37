//! Makes Rust of the protocol files, without protoc.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;

/// What things say in the words of users: a channel is a group. Each package has messages of its own, since clients
/// know them by their names; in Rust both are one type, that of users.
const SAME: [(&str, &str); 5] = [
    ("Page", "Page"),
    ("Channel", "Group"),
    ("ChannelFilter", "GroupFilter"),
    ("ListRelatedChannelsRequest", "ListRelatedGroupsRequest"),
    ("UpdateChannelRequest", "UpdateGroupRequest"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files([
            "mainflux/things/policies.proto",
            "mainflux/users/policies.proto",
            "rollcall/things/v1/things.proto",
            "rollcall/users/v1/groups.proto",
            "rollcall/users/v1/tokens.proto",
            "rollcall/users/v1/users.proto",
            "rollcall/bootstrap/v1/bootstrap.proto",
            "rollcall/v1/rollcall.proto",
        ])?;
    let path = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(path, compiler.encode_file_descriptor_set())?;

    let files = compiler.file_descriptor_set();
    let mut fields = HashMap::new();
    for file in &files.file {
        for message in &file.message_type {
            let kinds = message.field.iter().map(|it| {
                let name = it.name().to_owned();
                (name, it.number, it.r#type, it.label, it.proto3_optional)
            });
            let name = format!(".{}.{}", file.package(), message.name());
            fields.insert(name, kinds.collect::<Vec<_>>());
        }
    }
    let mut builder = tonic_prost_build::configure();
    for (things, users) in SAME {
        let name = format!(".rollcall.things.v1.{things}");
        if fields[&name] != fields[&format!(".rollcall.users.v1.{users}")] {
            return Err(format!("{things} is no {users} any longer: take both out of SAME").into());
        }
        builder = builder.extern_path(name, format!("crate::users_api::{users}"));
    }
    builder.compile_fds(files)?;
    Ok(())
}
