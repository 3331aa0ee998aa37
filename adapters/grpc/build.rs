//! Makes Rust of the protocol files, without protoc.

use std::error::Error;
use std::path::PathBuf;

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
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
