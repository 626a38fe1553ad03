//! Requests, answers, and the transport that a client asks for (RFC 2326).

use bytes::{Buf, Bytes, BytesMut};
use rtsp_types::{Message, ParseError, Request, ResponseBuilder, headers};

/// A client that sends more without a whole message in it is no RTSP client.
const MOST_UNPARSED_BYTES: usize = 64 << 10;

/// What came is no RTSP, or far too long for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no RTSP")]
pub struct NotRtsp;

/// Takes the next whole message out of what was received; none if more has to come first.
///
/// # Errors
/// [`NotRtsp`]: the connection can't be made sense of any more.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Message<Vec<u8>>>, NotRtsp> {
    if buffer.is_empty() {
        return Ok(None);
    }
    match Message::<Vec<u8>>::parse(&buffer[..]) {
        Ok((message, length)) => {
            buffer.advance(length);
            Ok(Some(message))
        }
        Err(ParseError::Incomplete(_)) if buffer.len() < MOST_UNPARSED_BYTES => Ok(None),
        Err(_) => Err(NotRtsp),
    }
}

/// An answer as bytes. It carries the number of the request, if it answers one.
#[must_use]
pub fn written(
    mut answer: ResponseBuilder,
    request: Option<&Request<Vec<u8>>>,
    server: &str,
    body: &[u8],
) -> Bytes {
    if let Some(sequence) = request.and_then(|request| request.header(&headers::CSEQ)) {
        answer = answer.header(headers::CSEQ, sequence.as_str());
    }
    let answer = answer.header(headers::SERVER, server);
    let mut bytes = Vec::with_capacity(512 + body.len());
    let result = if body.is_empty() {
        answer.empty().write(&mut bytes)
    } else {
        answer.build(body).write(&mut bytes)
    };
    result.expect("a vector takes everything");
    bytes.into()
}

/// One way to send packets that a client can do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Within the RTSP connection (RFC 2326 10.12), on this channel and the next, if the client has a wish.
    Interleaved(Option<u8>),
    /// By UDP, to these ports of the client: RTP, RTCP.
    Udp(u16, u16),
}

/// What a client's `Transport` header offers, in the client's order; what nobody here can do is left out.
pub fn offers(header: &str) -> impl Iterator<Item = Offer> {
    header.split(',').filter_map(|offer| {
        let mut fields = offer.trim().split(';').map(str::trim);
        let protocol = fields.next()?;
        let pair_of = |name: &str| fields.clone().find_map(|field| field.strip_prefix(name));
        match protocol {
            "RTP/AVP/TCP" => match pair_of("interleaved=") {
                None => Some(Offer::Interleaved(None)),
                Some(wanted) => {
                    let first = wanted.split('-').next()?.trim().parse().ok();
                    first
                        .filter(|first| *first < u8::MAX)
                        .map(|first| Offer::Interleaved(Some(first)))
                }
            },
            "RTP/AVP" | "RTP/AVP/UDP" => {
                let wanted = pair_of("client_port=")?;
                let (rtp, rtcp) = wanted.split_once('-')?;
                Some(Offer::Udp(rtp.trim().parse().ok()?, rtcp.trim().parse().ok()?))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(header: &str) -> Vec<Offer> {
        offers(header).collect()
    }

    #[test]
    fn a_client_is_offered_what_it_asks_for_in_its_order() {
        assert_eq!(
            of("RTP/AVP/TCP;unicast;interleaved=4-5"),
            [Offer::Interleaved(Some(4))]
        );
        assert_eq!(
            of("RTP/AVP;unicast;client_port=5000-5001,RTP/AVP/TCP;unicast"),
            [Offer::Udp(5000, 5001), Offer::Interleaved(None)]
        );
        assert_eq!(of("RTP/AVP/TCP;interleaved=255-256"), []);
        assert_eq!(of("RTP/SAVP;unicast;client_port=1-2, RTP/AVP;multicast"), []);
    }

    #[test]
    fn what_is_no_rtsp_is_told_from_what_is_not_whole_yet() {
        let mut buffer = BytesMut::from(&b"OPTIONS rtsp://camera/ RTSP/1.0\r\nCSeq: 1\r\n"[..]);
        assert_eq!(take(&mut buffer), Ok(None));
        buffer.extend_from_slice(b"\r\n$");
        assert!(matches!(take(&mut buffer), Ok(Some(Message::Request(_)))));
        assert_eq!(&buffer[..], b"$");
        let mut endless = BytesMut::from(&b"OPTIONS "[..]);
        endless.resize(MOST_UNPARSED_BYTES, b'a');
        assert_eq!(take(&mut endless), Err(NotRtsp));
    }
}
