//! What a client that knows nothing of the services but the address can find out over gRPC.

use std::collections::BTreeMap;

use prost_reflect::DescriptorPool;
use prost_reflect::prost::Message;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::world::World;

async fn ask(channel: &Channel, question: MessageRequest) -> MessageResponse {
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(question));
    let mut answers = answers.await.expect("an answer").into_inner();
    let answer = answers.message().await.expect("an answer").expect("one");
    answer.message_response.expect("something")
}

async fn services(channel: &Channel) -> Vec<String> {
    match ask(channel, MessageRequest::ListServices(String::new())).await {
        MessageResponse::ListServicesResponse(list) => {
            list.service.into_iter().map(|it| it.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// The file of a service, and those it is made of.
async fn describe(channel: &Channel, service: &str) -> DescriptorPool {
    let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
    let mut questions = vec![MessageRequest::FileContainingSymbol(service.to_owned())];
    while let Some(question) = questions.pop() {
        let MessageResponse::FileDescriptorResponse(found) = ask(channel, question).await else {
            panic!("no file of {service}");
        };
        for bytes in found.file_descriptor_proto {
            let file = FileDescriptorProto::decode(bytes.as_slice()).expect("a file");
            let unknown = file.dependency.iter().filter(|it| !files.contains_key(*it));
            questions.extend(unknown.cloned().map(MessageRequest::FileByFilename));
            files.insert(file.name().to_owned(), file);
        }
    }
    let set = FileDescriptorSet {
        file: files.into_values().collect(),
    };
    DescriptorPool::from_file_descriptor_set(set).expect("a whole")
}

#[test]
fn every_service_can_be_found_described_and_asked_whether_it_is_well() {
    let world = World::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let address = format!("http://{}", world.grpc());
        let channel = Endpoint::from_shared(address).expect("an address");
        let channel = channel.connect().await.expect("a server");
        let found = services(&channel).await;
        for expected in [
            "rollcall.v1.Presence",
            "rollcall.v1.Events",
            "rollcall.v1.Server",
            "mainflux.things.policies.AuthService",
            "grpc.health.v1.Health",
        ] {
            assert!(
                found.iter().any(|it| it == expected),
                "{expected}: {found:?}"
            );
        }
        let mut health = HealthClient::new(channel.clone());
        for service in found {
            let pool = describe(&channel, &service).await;
            let described = pool.get_service_by_name(&service).expect("described");
            assert!(described.methods().len() > 0, "{service}");
            if service.starts_with("grpc.") {
                continue;
            }
            let request = HealthCheckRequest {
                service: service.clone(),
            };
            let well = health.check(request).await;
            let well = well.unwrap_or_else(|status| panic!("{service}: {status}"));
            let status = well.into_inner().status();
            assert_eq!(status, ServingStatus::Serving, "{service}");
        }
        let request = HealthCheckRequest {
            service: "rollcall.v1.Oracle".to_owned(),
        };
        let unknown = health.check(request).await.expect_err("there is none");
        assert_eq!(unknown.code(), Code::NotFound);
    });
}

#[test]
fn older_tools_find_the_services_too() {
    use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1alpha::{FileDescriptorResponse, ServerReflectionRequest};

    let world = World::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let address = format!("http://{}", world.grpc());
        let channel = Endpoint::from_shared(address).expect("an address");
        let channel = channel.connect().await.expect("a server");
        let mut client = ServerReflectionClient::new(channel);
        let mut ask = async |question| {
            let question = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(question),
            };
            let answers = client.server_reflection_info(tokio_stream::once(question));
            let mut answers = answers.await.expect("an answer").into_inner();
            let answer = answers.message().await.expect("an answer").expect("one");
            answer.message_response.expect("something")
        };
        let name = "mainflux.users.policies.AuthService";
        match ask(MessageRequest::ListServices(String::new())).await {
            MessageResponse::ListServicesResponse(list) => {
                assert!(list.service.iter().any(|it| it.name == name), "{list:?}");
            }
            other => panic!("{other:?}"),
        }
        let file = ask(MessageRequest::FileContainingSymbol(name.to_owned())).await;
        let MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
            file_descriptor_proto: files,
        }) = file
        else {
            panic!("{file:?}");
        };
        let file = FileDescriptorProto::decode(files[0].as_slice()).expect("a file");
        assert_eq!(file.package(), "mainflux.users.policies");
    });
}
