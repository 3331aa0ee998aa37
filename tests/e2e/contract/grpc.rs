//! Calls of any method of the services, with messages as JSON: as the descriptions say that the server itself gives out.

use prost_reflect::prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

pub(crate) struct Caller {
    runtime: Runtime,
    channel: Channel,
    pool: DescriptorPool,
}

impl Caller {
    pub(crate) fn new(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        let pool = DescriptorPool::decode(rollcall_grpc::DESCRIPTORS).expect("descriptions");
        Self {
            runtime,
            channel,
            pool,
        }
    }

    fn method(&self, name: &str) -> MethodDescriptor {
        let (service, method) = name.split_once('/').expect("service/method");
        let service = self.pool.get_service_by_name(service);
        let service = service.unwrap_or_else(|| panic!("no service of {name}"));
        let mut methods = service.methods();
        let method = methods.find(|it| it.name() == method);
        method.unwrap_or_else(|| panic!("no method {name}"))
    }

    /// The answer of `package.Service/Method`.
    pub(crate) fn call(
        &self,
        name: &str,
        body: &str,
        token: Option<&str>,
    ) -> Result<Value, Status> {
        let method = self.method(name);
        let body = if body.is_empty() { "{}" } else { body };
        let mut json = serde_json::Deserializer::from_str(body);
        let message = DynamicMessage::deserialize(method.input(), &mut json);
        let message = message.unwrap_or_else(|error| panic!("{name} {body}: {error}"));
        let mut request = Request::new(message);
        if let Some(token) = token {
            let bearer = format!("Bearer {token}").parse().expect("ASCII");
            request.metadata_mut().insert("authorization", bearer);
        }
        let path: PathAndQuery = format!("/{name}").parse().expect("a path");
        let codec = Dynamic(method.output());
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        let answer = self.runtime.block_on(async {
            grpc.ready()
                .await
                .map_err(|error| Status::unavailable(error.to_string()))?;
            grpc.unary(request, path, codec).await
        })?;
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .stringify_64_bit_integers(false);
        let value = answer
            .into_inner()
            .serialize_with_options(serde_json::value::Serializer, &options);
        Ok(value.expect("JSON"))
    }
}

/// `NotFound` and so on.
pub(crate) fn code(code: Code) -> String {
    format!("{code:?}")
}

/// Messages of a kind that is only known when they come.
struct Dynamic(MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = Dynamic;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> Dynamic {
        Self(self.0.clone())
    }
}

struct DynamicEncoder;

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(
        &mut self,
        message: DynamicMessage,
        buffer: &mut EncodeBuf<'_>,
    ) -> Result<(), Status> {
        message
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        DynamicMessage::decode(self.0.clone(), buffer)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
