//! The codec: whatever arrives, in whatever pieces, is decoded or refused; what was decoded is encoded
//! and decoded again to the same.

#![no_main]

use bytes::BytesMut;
use leveret::protocol::encode::{self, Content};
use leveret::protocol::field_table::FieldTable;
use leveret::protocol::frame::{self, FrameKind, Parsed};
use leveret::protocol::properties::{Properties, parse_content_header};
use leveret::protocol::{Method, frame::FRAME_OVERHEAD};
use libfuzzer_sys::fuzz_target;

/// What [`frame::parse`] finds must not depend on how much is there yet.
fn grows_into(input: &[u8], whole: &Parsed<'_>, frame_max: u32) {
    let Parsed::Frame { size, .. } = whole else {
        return;
    };
    for len in [0, 1, 6, 7, size / 2, size - 1] {
        match frame::parse(&input[..len.min(size - 1)], frame_max) {
            Ok(Parsed::Incomplete { needed }) => assert!(needed <= *size),
            other => panic!("half of a good frame is {other:?}"),
        }
    }
}

macro_rules! encode_any {
    ($($variant:ident)+) => {
        fn encode_any(out: &mut BytesMut, method: &Method<'_>) {
            match method {
                $( Method::$variant(m) => encode::method(out, 1, m), )+
            }
        }
    };
}

encode_any! {
    AccessRequest AccessRequestOk BasicAck BasicCancel BasicCancelOk
    BasicConsume BasicConsumeOk BasicDeliver BasicGet BasicGetEmpty
    BasicGetOk BasicNack BasicPublish BasicQos BasicQosOk
    BasicRecover BasicRecoverAsync BasicRecoverOk BasicReject BasicReturn
    ChannelClose ChannelCloseOk ChannelFlow ChannelFlowOk ChannelOpen
    ChannelOpenOk ConfirmSelect ConfirmSelectOk ConnectionBlocked ConnectionClose
    ConnectionCloseOk ConnectionOpen ConnectionOpenOk ConnectionSecure ConnectionSecureOk
    ConnectionStart ConnectionStartOk ConnectionTune ConnectionTuneOk ConnectionUnblocked
    ConnectionUpdateSecret ConnectionUpdateSecretOk ExchangeBind ExchangeBindOk ExchangeDeclare
    ExchangeDeclareOk ExchangeDelete ExchangeDeleteOk ExchangeUnbind ExchangeUnbindOk
    QueueBind QueueBindOk QueueDeclare QueueDeclareOk QueueDelete
    QueueDeleteOk QueuePurge QueuePurgeOk QueueUnbind QueueUnbindOk
    TxCommit TxCommitOk TxRollback TxRollbackOk TxSelect
    TxSelectOk
}

fn method(payload: &[u8]) {
    let Ok(method) = Method::decode(payload) else {
        return;
    };
    let mut out = BytesMut::new();
    encode_any(&mut out, &method);
    let again = out.to_vec();
    let Ok(Parsed::Frame { frame, .. }) = frame::parse(&again, 0) else {
        panic!("an encoded method is no frame: {method:?}");
    };
    let decoded = Method::decode(frame.payload).expect("what was encoded decodes");
    assert_eq!(format!("{decoded:?}"), format!("{method:?}"));
}

fn header(payload: &[u8]) {
    let Ok(header) = parse_content_header(payload) else {
        return;
    };
    let properties = Properties::from(header.properties);
    let raw = properties.encode();
    let mut out = BytesMut::new();
    let content = Content {
        properties: &raw,
        body: b"",
    };
    encode::content(&mut out, 1, &content, 131_072.max((raw.len() + 64) as u32));
    let again = out.to_vec();
    let Ok(Parsed::Frame { frame, .. }) = frame::parse(&again, 0) else {
        panic!("an encoded header is no frame");
    };
    let decoded = parse_content_header(frame.payload).expect("what was encoded decodes");
    assert_eq!(Properties::from(decoded.properties).encode(), raw);
}

fn table(bytes: &[u8]) {
    if let Ok(table) = FieldTable::parse(bytes) {
        let once = table.to_bytes();
        let again = FieldTable::parse(&once).expect("what was encoded decodes");
        assert_eq!(again.to_bytes(), once);
    }
}

fuzz_target!(|input: &[u8]| {
    table(input);
    method(input);
    header(input);
    let frame_max = 131_072;
    let mut rest = input;
    while let Ok(parsed) = frame::parse(rest, frame_max) {
        grows_into(rest, &parsed, frame_max);
        let Parsed::Frame { frame, size } = parsed else {
            break;
        };
        assert_eq!(frame.payload.len() + FRAME_OVERHEAD, size);
        match frame.kind {
            FrameKind::Method => method(frame.payload),
            FrameKind::Header => header(frame.payload),
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
        rest = &rest[size..];
    }
});
