// SPDX-License-Identifier: GPL-2.0

//! Parses the other node's part of the handshake, in pieces of any size.
//!
//! The reader does no I/O: the caller reads bytes into [`HelloReader::want`] and passes their number to
//! [`HelloReader::filled`]. The reader never wants a byte behind the HELLO, because that belongs to the first
//! message. The caller has to limit the time.
//!
//! A reader belongs to the handshake, whose mutex protects it. It has only its own buffer.

use super::{
    hello::HELLO_VERSION_1,
    AcceptorRequest,
    ByteOrder,
    Hello,
    Proto,
    Reader,
    WireError,
    ACCEPTOR_MAGIC,
    HELLO_MAGIC_V1,
    HELLO_MAX,
    LNET_MAGIC, //
};

/// The length of magic and version, with which every format begins.
const OPENING_LEN: usize = 8;

const ACCEPTOR_MAGIC_SWAPPED: u32 = ACCEPTOR_MAGIC.swap_bytes();
const LNET_MAGIC_SWAPPED: u32 = LNET_MAGIC.swap_bytes();

/// The result of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Incomplete: read on.
    More,
    /// The acceptor request, which comes first: read on, if its target is this node.
    Request(AcceptorRequest),
    /// The whole HELLO: finished.
    Hello(Hello),
    /// An acceptor request of a version that is not spoken: answer with
    /// [`ACCEPTOR_REFUSAL`](super::ACCEPTOR_REFUSAL) and close.
    AcceptorVersion,
    /// A HELLO of a version that is not spoken: answer with a HELLO of our version and close.
    ForeignVersion {
        /// Its magic.
        magic: u32,
        /// Its version: for version 1.x, the minor number in the upper half.
        version: u32,
    },
}

/// What is being read into the buffer.
#[derive(Clone, Copy)]
enum State {
    /// Magic and version of what this says.
    Opening(Opening),
    /// A whole acceptor request.
    Request(ByteOrder),
    /// A HELLO of this version up to its addresses.
    HelloHead(Proto, ByteOrder),
    /// The addresses of this HELLO.
    HelloIps(Hello),
    /// Nothing: it has finished.
    End,
}

/// What may begin with the magic and the version that are read next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// An acceptor request or a HELLO.
    Any,
    /// A HELLO.
    Hello,
}

/// Reads an acceptor request and a HELLO, or only a HELLO.
///
/// Give the bytes to it with [`HelloReader::want`] and [`HelloReader::filled`] until the latter
/// returns an error or something else than [`Progress::More`] and [`Progress::Request`].
///
/// # Invariants
///
/// `have <= need <= HELLO_MAX`; they are equal only when `state` is `End`.
pub(crate) struct HelloReader {
    buf: [u8; HELLO_MAX],
    have: usize,
    need: usize,
    state: State,
    /// The oldest and the newest version that are spoken.
    spoken: (Proto, Proto),
}

impl HelloReader {
    /// For an accepted connection: an acceptor request, then a HELLO; or a HELLO at once. Versions up to `newest`
    /// are spoken.
    pub(crate) const fn passive(newest: Proto) -> Self {
        Self::new(State::Opening(Opening::Any), newest)
    }

    /// For a connection that this node has opened: a HELLO.
    pub(crate) const fn active(newest: Proto) -> Self {
        Self::new(State::Opening(Opening::Hello), newest)
    }

    const fn new(state: State, newest: Proto) -> Self {
        // INVARIANT: An opening is shorter than a HELLO.
        Self {
            buf: [0; HELLO_MAX],
            have: 0,
            need: OPENING_LEN,
            state,
            spoken: (Proto::V1, newest),
        }
    }

    /// Versions before `oldest` are not spoken either.
    pub(crate) const fn not_before(mut self, oldest: Proto) -> Self {
        self.spoken.0 = oldest;
        self
    }

    fn speaks(&self, proto: Proto) -> bool {
        let (oldest, newest) = self.spoken;
        (oldest..=newest).contains(&proto)
    }

    /// The buffer for the next bytes. As many as fit, or fewer, are to be read into its start.
    ///
    /// Never empty before the end.
    pub(crate) fn want(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.have..self.need).unwrap_or_default()
    }

    /// Continues after `n` bytes were read into [`HelloReader::want`].
    ///
    /// # Errors
    ///
    /// The error in the bytes: close the connection without an answer. [`WireError::Truncated`] if `n` is more
    /// than was wanted, which any number is after the end.
    pub(crate) fn filled(&mut self, n: usize) -> Result<Progress, WireError> {
        let result = self.advance(n);
        if !matches!(result, Ok(Progress::More | Progress::Request(_))) {
            self.enter(State::End, 0, 0);
        }
        result
    }

    fn advance(&mut self, n: usize) -> Result<Progress, WireError> {
        match self.have.checked_add(n) {
            Some(have) if have <= self.need => self.have = have,
            _ => return Err(WireError::Truncated),
        }
        if self.have < self.need {
            return Ok(Progress::More);
        }

        match self.state {
            State::Opening(allowed) => self.opening(allowed),
            State::Request(order) => {
                let request = AcceptorRequest::parse(self.filled_part(), order)?;
                self.enter(State::Opening(Opening::Hello), 0, OPENING_LEN);
                Ok(Progress::Request(request))
            }
            State::HelloHead(proto, order) => {
                let (hello, ips_len) = Hello::parse(self.filled_part(), proto, order)?;
                if ips_len == 0 {
                    return Ok(Progress::Hello(hello));
                }
                self.enter(State::HelloIps(hello), 0, ips_len);
                Ok(Progress::More)
            }
            State::HelloIps(mut hello) => {
                hello.parse_ips(self.filled_part())?;
                Ok(Progress::Hello(hello))
            }
            State::End => Err(WireError::Truncated),
        }
    }

    /// Decides from magic and version what follows.
    fn opening(&mut self, allowed: Opening) -> Result<Progress, WireError> {
        let first = allowed == Opening::Any;
        let mut from = Reader::new(&self.buf, ByteOrder::Little);
        let (magic, version, order) = match (from.u32()?, from.u32()?) {
            // From a machine of the other byte order.
            (ACCEPTOR_MAGIC_SWAPPED, version) => {
                (ACCEPTOR_MAGIC, version.swap_bytes(), ByteOrder::Big)
            }
            (LNET_MAGIC_SWAPPED, version) => (LNET_MAGIC, version.swap_bytes(), ByteOrder::Big),
            (magic, version) => (magic, version, ByteOrder::Little),
        };
        let foreign = Ok(Progress::ForeignVersion { magic, version });
        match (magic, version) {
            (HELLO_MAGIC_V1, HELLO_VERSION_1) if self.speaks(Proto::V1) => {
                self.expect_hello(Proto::V1, order);
                Ok(Progress::More)
            }
            (HELLO_MAGIC_V1, _) => foreign,
            (ACCEPTOR_MAGIC, _) if first => match AcceptorRequest::len(version) {
                Some(len) => {
                    self.enter(State::Request(order), OPENING_LEN, len);
                    Ok(Progress::More)
                }
                None => Ok(Progress::AcceptorVersion),
            },
            (LNET_MAGIC, 2..) => match Proto::from_number(version) {
                Some(proto) if self.speaks(proto) => {
                    self.expect_hello(proto, order);
                    Ok(Progress::More)
                }
                // A HELLO without an acceptor request, or a future acceptor's.
                None if first => Ok(Progress::AcceptorVersion),
                _ => foreign,
            },
            (LNET_MAGIC, _) if first => Ok(Progress::AcceptorVersion),
            (LNET_MAGIC, _) => foreign,
            _ => Err(WireError::Magic(magic)),
        }
    }

    fn expect_hello(&mut self, proto: Proto, order: ByteOrder) {
        let state = State::HelloHead(proto, order);
        self.enter(state, OPENING_LEN, Hello::head_len(proto));
    }

    /// Waits for `need` bytes, of which the first `have` have been read.
    fn enter(&mut self, state: State, have: usize, need: usize) {
        // INVARIANT: All callers ask for parts of a HELLO, or for an acceptor request, which is
        // shorter than the longest, and have less than that; except at the end, where both are 0.
        self.have = have;
        self.need = need;
        self.state = state;
    }

    /// The bytes read so far of the current part.
    fn filled_part(&self) -> &[u8] {
        self.buf.get(..self.have).unwrap_or_default()
    }
}

#[cfg_attr(
    CONFIG_KUNIT = "y",
    kernel::macros::kunit_tests(socklnd_wire_handshake)
)]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::{
        super::{
            ConnType,
            IpVec,
            Nid,
            REQUEST_MAX, //
        },
        *,
    };
    use core::net::Ipv4Addr;

    const REQUEST_LEN: usize = 16;
    const ALL: [Proto; 4] = [Proto::V1, Proto::V2, Proto::V3, Proto::V4];

    fn hello(proto: Proto) -> Result<Hello, WireError> {
        let mut ips = IpVec::new();
        if proto != Proto::V4 {
            ips.push(Ipv4Addr::new(10, 0, 0, 1))?;
        }
        Ok(Hello {
            proto,
            order: ByteOrder::Little,
            src: Nid::tcp(0, [10, 0, 0, 1]),
            dest: (proto != Proto::V1).then_some(Nid::tcp(0, [10, 0, 0, 2])),
            src_pid: 12345,
            dest_pid: 12345,
            incarnation: 1,
            kind: Some(ConnType::Control),
            ips,
        })
    }

    fn request() -> AcceptorRequest {
        AcceptorRequest {
            target: Nid::tcp(0, [10, 0, 0, 2]),
        }
    }

    /// Gives `reader` the front of `bytes`, at most `chunk` at a time, until it has something to
    /// say.
    fn feed(
        reader: &mut HelloReader,
        bytes: &mut &[u8],
        chunk: usize,
    ) -> Result<Progress, WireError> {
        loop {
            let room = reader.want();
            let n = room.len().min(chunk).min(bytes.len());
            let (head, tail) = bytes.split_at(n);
            room[..n].copy_from_slice(head);
            *bytes = tail;
            let progress = reader.filled(n)?;
            if progress != Progress::More || bytes.is_empty() {
                return Ok(progress);
            }
        }
    }

    /// What a new passive reader says to an opening.
    fn passive(magic: u32, version: u32) -> Result<Progress, WireError> {
        opening(HelloReader::passive(Proto::NEWEST), magic, version)
    }

    /// What a new active reader says to an opening.
    fn active(magic: u32, version: u32) -> Result<Progress, WireError> {
        opening(HelloReader::active(Proto::NEWEST), magic, version)
    }

    fn opening(mut reader: HelloReader, magic: u32, version: u32) -> Result<Progress, WireError> {
        let mut bytes = [0xee; 64];
        bytes[..4].copy_from_slice(&magic.to_le_bytes());
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        let mut left = bytes.as_slice();
        let progress = feed(&mut reader, &mut left, 64);
        // Decided as soon as it can be, and for good.
        assert_eq!(left.len(), 64 - OPENING_LEN);
        assert!(reader.want().is_empty());
        assert_eq!(reader.filled(0), Err(WireError::Truncated));
        progress
    }

    #[test]
    fn whole_handshake_in_any_pieces() -> Result<(), WireError> {
        let mut request_bytes = [0; REQUEST_MAX];
        let request_bytes = request().build(&mut request_bytes)?;
        for (proto, order) in ALL.into_iter().zip([
            ByteOrder::Little,
            ByteOrder::Big,
            ByteOrder::Little,
            ByteOrder::Big,
        ]) {
            let hello = Hello {
                order,
                ..hello(proto)?
            };
            let mut bytes = [0xee; REQUEST_LEN + HELLO_MAX];
            let mut hello_bytes = [0; HELLO_MAX];
            let hello_bytes = hello.build(&mut hello_bytes)?;
            bytes[..REQUEST_LEN].copy_from_slice(request_bytes);
            bytes[REQUEST_LEN..][..hello_bytes.len()].copy_from_slice(hello_bytes);
            let behind = HELLO_MAX - hello_bytes.len();
            let done = Ok(Progress::Hello(hello));

            for chunk in 1..=bytes.len() {
                let mut reader = HelloReader::passive(proto);
                let mut left = bytes.as_slice();
                let first = feed(&mut reader, &mut left, chunk);
                assert_eq!(first, Ok(Progress::Request(request())));
                assert_eq!(feed(&mut reader, &mut left, chunk), done);
                assert_eq!(left.len(), behind);
                assert!(reader.want().is_empty());

                for mut reader in [
                    HelloReader::passive(Proto::NEWEST),
                    HelloReader::active(Proto::NEWEST),
                ] {
                    let mut left = &bytes[REQUEST_LEN..];
                    assert_eq!(feed(&mut reader, &mut left, chunk), done);
                    assert_eq!(left.len(), behind);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn long_request() -> Result<(), WireError> {
        let request = AcceptorRequest {
            target: Nid::tcp(0, [0xfd00u16, 0, 0, 0, 0, 0, 0, 1]),
        };
        let mut bytes = [0; REQUEST_MAX];
        request.build(&mut bytes)?;
        for chunk in 1..=bytes.len() {
            let mut reader = HelloReader::passive(Proto::NEWEST);
            let mut left = bytes.as_slice();
            let read = feed(&mut reader, &mut left, chunk);
            assert_eq!(read, Ok(Progress::Request(request)));
            assert_eq!(reader.want().len(), OPENING_LEN);
        }
        Ok(())
    }

    #[test]
    fn hello_without_addresses() -> Result<(), WireError> {
        for proto in ALL {
            let hello = Hello {
                ips: IpVec::new(),
                kind: None,
                ..hello(proto)?
            };
            let mut bytes = [0; HELLO_MAX];
            let len = hello.build(&mut bytes)?.len();
            let mut left = bytes.as_slice();
            assert_eq!(
                feed(&mut HelloReader::active(proto), &mut left, 100),
                Ok(Progress::Hello(hello))
            );
            assert_eq!(left.len(), HELLO_MAX - len);
        }
        Ok(())
    }

    #[test]
    fn only_one_request() -> Result<(), WireError> {
        let mut reader = HelloReader::passive(Proto::NEWEST);
        let mut bytes = [0; REQUEST_MAX];
        request().build(&mut bytes)?;
        let once: [u8; REQUEST_LEN] = *bytes.first_chunk().ok_or(WireError::Truncated)?;
        let bytes = [once, once];
        let mut left = bytes.as_flattened();
        assert_eq!(
            feed(&mut reader, &mut left, 100),
            Ok(Progress::Request(request()))
        );
        let again = feed(&mut reader, &mut left, 100);
        assert_eq!(again, Err(WireError::Magic(ACCEPTOR_MAGIC)));
        assert!(reader.want().is_empty());
        // Nor is one a HELLO's place.
        assert_eq!(
            active(ACCEPTOR_MAGIC, 1),
            Err(WireError::Magic(ACCEPTOR_MAGIC))
        );
        Ok(())
    }

    #[test]
    fn foreign_hellos() {
        let foreign = |version| {
            Ok(Progress::ForeignVersion {
                magic: LNET_MAGIC,
                version,
            })
        };
        // Versions that this node could speak, but does not.
        for version in [2u32, 3, 4] {
            for newest in ALL.into_iter().filter(|proto| proto.number() < version) {
                for (magic, number) in [
                    (LNET_MAGIC, version),
                    (LNET_MAGIC.swap_bytes(), version.swap_bytes()),
                ] {
                    for reader in [HelloReader::passive(newest), HelloReader::active(newest)] {
                        assert_eq!(opening(reader, magic, number), foreign(version));
                    }
                }
            }
        }
        for version in [0, 1, 5, u32::MAX] {
            assert_eq!(active(LNET_MAGIC, version), foreign(version));
        }
        for version in [0, 2, 0x0001_0001, 0x0100_0000, u32::MAX] {
            let foreign = Ok(Progress::ForeignVersion {
                magic: HELLO_MAGIC_V1,
                version,
            });
            assert_eq!(passive(HELLO_MAGIC_V1, version), foreign);
            assert_eq!(active(HELLO_MAGIC_V1, version), foreign);
        }
    }

    /// A node with an IPv6 NID can't say who it is in versions before 4.
    #[test]
    fn versions_that_are_too_old() -> Result<(), WireError> {
        for oldest in ALL {
            for proto in ALL {
                for reader in [
                    HelloReader::passive(Proto::NEWEST),
                    HelloReader::active(Proto::NEWEST),
                ] {
                    let mut reader = reader.not_before(oldest);
                    let mut bytes = [0; HELLO_MAX];
                    let hello = hello(proto)?;
                    let bytes = hello.build(&mut bytes)?;
                    let (magic, version) = if proto == Proto::V1 {
                        (HELLO_MAGIC_V1, HELLO_VERSION_1)
                    } else {
                        (LNET_MAGIC, proto.number())
                    };
                    let mut left = bytes;
                    let said = feed(&mut reader, &mut left, 100)?;
                    if proto < oldest {
                        assert_eq!(said, Progress::ForeignVersion { magic, version });
                        assert_eq!(left.len(), bytes.len() - OPENING_LEN);
                    } else {
                        assert_eq!(said, Progress::Hello(hello));
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn foreign_hello_after_the_request() -> Result<(), WireError> {
        for version in [0u32, 1, 4, 5, u32::MAX] {
            let mut bytes = [0; REQUEST_MAX + 56];
            let mut request_bytes = [0; REQUEST_MAX];
            let len = request().build(&mut request_bytes)?.len();
            bytes[..len].copy_from_slice(&request_bytes[..len]);
            bytes[len..][..4].copy_from_slice(&LNET_MAGIC.to_be_bytes());
            bytes[len + 4..][..4].copy_from_slice(&version.to_be_bytes());
            let mut reader = HelloReader::passive(Proto::V3);
            let mut left = bytes.as_slice();
            feed(&mut reader, &mut left, 100)?;
            assert_eq!(
                feed(&mut reader, &mut left, 100),
                Ok(Progress::ForeignVersion {
                    magic: LNET_MAGIC,
                    version
                })
            );
            assert_eq!(left.len(), bytes.len() - len - OPENING_LEN);
        }
        Ok(())
    }

    #[test]
    fn foreign_acceptors() {
        for version in [0, 3, 0x0100_0000, u32::MAX] {
            let refuse = Ok(Progress::AcceptorVersion);
            assert_eq!(passive(ACCEPTOR_MAGIC, version), refuse);
            assert_eq!(
                passive(ACCEPTOR_MAGIC.swap_bytes(), version.swap_bytes()),
                refuse
            );
        }
        for version in [0, 1, 5, u32::MAX] {
            assert_eq!(passive(LNET_MAGIC, version), Ok(Progress::AcceptorVersion));
        }
    }

    #[test]
    fn strangers() {
        for magic in [
            0,
            u32::MAX,
            HELLO_MAGIC_V1.swap_bytes(), // this one has but one byte order
            0x2054_4547,                 // "GET "
            0x0100_0316,                 // a TLS handshake
        ] {
            assert_eq!(passive(magic, 1), Err(WireError::Magic(magic)));
            assert_eq!(active(magic, 1), Err(WireError::Magic(magic)));
        }
    }

    #[test]
    fn bytes_that_were_not_wanted() {
        for n in [OPENING_LEN + 1, usize::MAX] {
            let mut reader = HelloReader::passive(Proto::NEWEST);
            assert_eq!(reader.filled(3), Ok(Progress::More));
            assert_eq!(reader.want().len(), OPENING_LEN - 3);
            assert_eq!(reader.filled(n), Err(WireError::Truncated));
            assert!(reader.want().is_empty());
        }
    }
}
