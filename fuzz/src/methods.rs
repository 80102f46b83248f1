//! Methods: each is decoded as a second reader, which knows nothing but the table of the specification, decodes it,
//! or refused as that refuses it; and written as that writes it.
//!
//! The first octet chooses the method; with 255 the input says it itself.

use bytes::BytesMut;
use leveret::protocol::encode;
use leveret::protocol::frame::{self, FRAME_OVERHEAD, FrameKind, Parsed};
use leveret::protocol::wire::DecodeError;
use leveret::protocol::{EncodeMethod, Method};

use super::layout::{self, Wrong};
use super::within;

/// What a decoded method and its copies take, octets: it borrows from the frame, and is shown where it is refused.
const AT_REST: u64 = 64 << 10;
const FOR_AN_OCTET: u64 = 16;

macro_rules! encode_any {
    ($($variant:ident)+) => {
        fn encode_any(out: &mut BytesMut, method: &Method<'_>) {
            match method {
                $( Method::$variant(m) => encode::method(out, 1, m), )+
            }
        }

        fn encoded_len(method: &Method<'_>) -> usize {
            match method {
                $( Method::$variant(m) => m.encoded_len(), )+
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

pub(super) fn check(payload: &[u8]) {
    let canonical = layout::canonical(payload);
    let method = match (Method::decode(payload), &canonical) {
        (Ok(method), Ok(_)) => method,
        (Err(e), Err(why)) => {
            match (&e, why) {
                (DecodeError::UnknownMethod(_), Wrong::Unknown)
                | (DecodeError::Malformed(_), Wrong::Syntax)
                | (DecodeError::MalformedUtf8, Wrong::Utf8) => {}
                other => panic!("refused for another reason: {other:?}"),
            }
            assert!(!e.to_string().is_empty());
            return;
        }
        other => panic!("read in two ways: {other:?}"),
    };
    let mut out = BytesMut::new();
    encode_any(&mut out, &method);
    assert_eq!(
        out.len(),
        FRAME_OVERHEAD + 4 + encoded_len(&method),
        "{method:?}"
    );
    let Ok(Parsed::Frame { frame, size }) = frame::parse(&out, 0) else {
        panic!("an encoded method is no frame: {method:?}");
    };
    assert_eq!(
        (frame.kind, frame.channel, size),
        (FrameKind::Method, 1, out.len())
    );
    assert_eq!(Ok(frame.payload), canonical.as_deref(), "{method:?}");
    assert_eq!(Method::decode(frame.payload), Ok(method));
    // Nor is it anything else when it is cut, or goes on.
    let longer = [payload, &[0]].concat();
    for other in [&payload[..payload.len() - 1], &longer] {
        assert_eq!(
            Method::decode(other).is_ok(),
            layout::canonical(other).is_ok()
        );
    }
}

/// See the module.
pub fn run(input: &[u8]) {
    // What is read once is not of this input.
    let all = layout::all();
    let Some((chosen, arguments)) = input.split_first() else {
        return;
    };
    let mut payload = Vec::new();
    if *chosen != u8::MAX {
        let layout = &all[usize::from(*chosen) % all.len()];
        payload.extend(layout.class.to_be_bytes());
        payload.extend(layout.id.to_be_bytes());
    }
    payload.extend(arguments);
    within(AT_REST, FOR_AN_OCTET, payload.len(), || check(&payload));
}
