// SPDX-License-Identifier: GPL-2.0

//! Reads the other end's half of the handshake, piece by piece.
//!
//! The reader does no I/O: it says how many bytes it wants and where to put them, and is told how
//! many came. It never wants a byte that may lie behind the HELLO, because that belongs to the
//! first message. Nor does it know time: a sender that dribbles, or stops, is for the caller to
//! limit.
//!
//! A reader belongs to the one thread that runs the handshake. It holds only its own buffer.

use super::{
    acceptor::{
        ACCEPTOR_LEN,
        ACCEPTOR_VERSION, //
    },
    hello::{
        HELLO_V1_LEN,
        HELLO_VERSION_1, //
    },
    AcceptorRequest,
    Hello,
    Reader,
    WireError,
    ACCEPTOR_MAGIC,
    HELLO_MAGIC_V1,
    HELLO_V1_MAX,
    LNET_MAGIC, //
};

/// Bytes that tell what is coming: magic and version, in every format.
const OPENING_LEN: usize = 8;

const ACCEPTOR_MAGIC_SWAPPED: u32 = ACCEPTOR_MAGIC.swap_bytes();
const LNET_MAGIC_SWAPPED: u32 = LNET_MAGIC.swap_bytes();

/// What the bytes so far mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing yet: read on.
    More,
    /// The acceptor request, which comes first: read on, if the target is us.
    Request(AcceptorRequest),
    /// The whole HELLO; finished.
    Hello(Hello),
    /// An acceptor request of a version that is not spoken: answer with
    /// [`ACCEPTOR_REFUSAL`](super::ACCEPTOR_REFUSAL) and close.
    AcceptorVersion,
    /// A HELLO of a version that is not spoken: answer with a refusal of our version and close.
    ForeignVersion {
        /// Its magic.
        magic: u32,
        /// Its version: for version 1.x, the minor number in the upper half.
        version: u32,
    },
}

/// What the bytes in the buffer will be once there are enough of them.
#[derive(Clone, Copy)]
enum Expect {
    /// Magic and version of an acceptor request or of a HELLO.
    Opening,
    /// A whole acceptor request.
    Request,
    /// Magic and version of a HELLO.
    HelloOpening,
    /// A HELLO up to its addresses.
    HelloHead,
    /// The addresses of this HELLO.
    HelloIps(Hello),
    /// Nothing any more.
    End,
}

/// Reads an acceptor request and a HELLO, or only a HELLO.
///
/// Give the bytes to it with [`HelloReader::want`] and [`HelloReader::filled`] until the latter
/// returns an error or something else than [`Progress::More`] and [`Progress::Request`].
///
/// # Invariants
///
/// `have <= need <= HELLO_V1_MAX`; they are equal only when `expect` is `End`.
pub(crate) struct HelloReader {
    buf: [u8; HELLO_V1_MAX],
    have: usize,
    need: usize,
    expect: Expect,
}

impl HelloReader {
    /// For a connection that was accepted: an acceptor request, then a HELLO; or a HELLO at once.
    pub(crate) const fn passive() -> Self {
        Self::new(Expect::Opening)
    }

    /// For a connection that we made: a HELLO.
    pub(crate) const fn active() -> Self {
        Self::new(Expect::HelloOpening)
    }

    const fn new(expect: Expect) -> Self {
        // INVARIANT: An opening is shorter than a HELLO.
        Self {
            buf: [0; HELLO_V1_MAX],
            have: 0,
            need: OPENING_LEN,
            expect,
        }
    }

    /// The room for the next bytes; as many as fit, or fewer, are to be read into its start.
    ///
    /// Never empty before the end.
    pub(crate) fn want(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.have..self.need).unwrap_or_default()
    }

    /// Says what `n` bytes that were read into [`HelloReader::want`] complete.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes; close the connection without an answer.
    /// [`WireError::Truncated`] if `n` is more than was wanted, as any number is after the end.
    pub(crate) fn filled(&mut self, n: usize) -> Result<Progress, WireError> {
        let result = self.advance(n);
        if !matches!(result, Ok(Progress::More | Progress::Request(_))) {
            self.expect(Expect::End, 0, 0);
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

        match self.expect {
            Expect::Opening => self.opening(true),
            Expect::HelloOpening => self.opening(false),
            Expect::Request => {
                let request = AcceptorRequest::parse(self.filled_part()?)?;
                self.expect(Expect::HelloOpening, 0, OPENING_LEN);
                Ok(Progress::Request(request))
            }
            Expect::HelloHead => {
                let (hello, ips_len) = Hello::parse_v1(self.filled_part()?)?;
                if ips_len == 0 {
                    return Ok(Progress::Hello(hello));
                }
                self.expect(Expect::HelloIps(hello), 0, ips_len);
                Ok(Progress::More)
            }
            Expect::HelloIps(mut hello) => {
                hello.parse_ips(self.buf.get(..self.have).unwrap_or_default())?;
                Ok(Progress::Hello(hello))
            }
            Expect::End => Err(WireError::Truncated),
        }
    }

    /// Decides from magic and version what follows; `first` if an acceptor request may.
    fn opening(&mut self, first: bool) -> Result<Progress, WireError> {
        let mut from = Reader(&self.buf);
        let (magic, version) = match (from.u32()?, from.u32()?) {
            // From a machine of the other byte order.
            (ACCEPTOR_MAGIC_SWAPPED, version) => (ACCEPTOR_MAGIC, version.swap_bytes()),
            (LNET_MAGIC_SWAPPED, version) => (LNET_MAGIC, version.swap_bytes()),
            same => same,
        };
        match (magic, version) {
            (HELLO_MAGIC_V1, HELLO_VERSION_1) => {
                self.expect(Expect::HelloHead, OPENING_LEN, HELLO_V1_LEN);
                Ok(Progress::More)
            }
            (ACCEPTOR_MAGIC, ACCEPTOR_VERSION) if first => {
                self.expect(Expect::Request, OPENING_LEN, ACCEPTOR_LEN);
                Ok(Progress::More)
            }
            (ACCEPTOR_MAGIC, _) if first => Ok(Progress::AcceptorVersion),
            // Today's HELLOs, without an acceptor request.
            (LNET_MAGIC, 2..=4) => Ok(Progress::ForeignVersion { magic, version }),
            (LNET_MAGIC, _) if first => Ok(Progress::AcceptorVersion),
            (LNET_MAGIC | HELLO_MAGIC_V1, _) => Ok(Progress::ForeignVersion { magic, version }),
            _ => Err(WireError::Magic(magic)),
        }
    }

    /// Waits for `expect`: `need` bytes, of which the first `have` are there.
    fn expect(&mut self, expect: Expect, have: usize, need: usize) {
        // INVARIANT: All callers ask for parts of a HELLO v1.0, or for an acceptor request, which
        // is shorter, and have less than that; except at the end, where both are 0.
        self.have = have;
        self.need = need;
        self.expect = expect;
    }

    /// The first `N` bytes of the buffer.
    fn filled_part<const N: usize>(&self) -> Result<&[u8; N], WireError> {
        self.buf.first_chunk().ok_or(WireError::Truncated)
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
            Nid, //
        },
        *,
    };
    use core::net::Ipv4Addr;

    fn hello() -> Result<Hello, WireError> {
        let mut ips = IpVec::new();
        ips.push(Ipv4Addr::new(10, 0, 0, 1))?;
        Ok(Hello {
            src: Nid::tcp(0, [10, 0, 0, 1]),
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
        opening(HelloReader::passive(), magic, version)
    }

    /// What a new active reader says to an opening.
    fn active(magic: u32, version: u32) -> Result<Progress, WireError> {
        opening(HelloReader::active(), magic, version)
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
        let mut bytes = [0xee; ACCEPTOR_LEN + HELLO_V1_MAX];
        let mut hello_bytes = [0; HELLO_V1_MAX];
        let len = hello()?.build_v1(&mut hello_bytes)?;
        bytes[..ACCEPTOR_LEN].copy_from_slice(&request().build()?);
        bytes[ACCEPTOR_LEN..][..len].copy_from_slice(&hello_bytes[..len]);
        let behind = HELLO_V1_MAX - len;

        for chunk in 1..=bytes.len() {
            let mut reader = HelloReader::passive();
            let mut left = bytes.as_slice();
            assert_eq!(
                feed(&mut reader, &mut left, chunk),
                Ok(Progress::Request(request()))
            );
            assert_eq!(
                feed(&mut reader, &mut left, chunk),
                Ok(Progress::Hello(hello()?))
            );
            assert_eq!(left.len(), behind);
            assert!(reader.want().is_empty());

            for mut reader in [HelloReader::passive(), HelloReader::active()] {
                let mut left = &bytes[ACCEPTOR_LEN..];
                assert_eq!(
                    feed(&mut reader, &mut left, chunk),
                    Ok(Progress::Hello(hello()?))
                );
                assert_eq!(left.len(), behind);
            }
        }
        Ok(())
    }

    #[test]
    fn hello_without_addresses() -> Result<(), WireError> {
        let mut hello = hello()?;
        hello.ips = IpVec::new();
        hello.kind = None;
        let mut bytes = [0; HELLO_V1_MAX];
        hello.build_v1(&mut bytes)?;
        let mut left = bytes.as_slice();
        assert_eq!(
            feed(&mut HelloReader::active(), &mut left, 100),
            Ok(Progress::Hello(hello))
        );
        assert_eq!(left.len(), HELLO_V1_MAX - HELLO_V1_LEN);
        Ok(())
    }

    #[test]
    fn only_one_request() -> Result<(), WireError> {
        let mut reader = HelloReader::passive();
        let bytes = [request().build()?, request().build()?];
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
        for version in [2, 3, 4] {
            let foreign = Ok(Progress::ForeignVersion {
                magic: LNET_MAGIC,
                version,
            });
            assert_eq!(passive(LNET_MAGIC, version), foreign);
            assert_eq!(
                passive(LNET_MAGIC.swap_bytes(), version.swap_bytes()),
                foreign
            );
            assert_eq!(active(LNET_MAGIC, version), foreign);
        }
        assert_eq!(
            active(LNET_MAGIC, 5),
            Ok(Progress::ForeignVersion {
                magic: LNET_MAGIC,
                version: 5
            })
        );
        for version in [0, 2, 0x0001_0001, 0x0100_0000, u32::MAX] {
            let foreign = Ok(Progress::ForeignVersion {
                magic: HELLO_MAGIC_V1,
                version,
            });
            assert_eq!(passive(HELLO_MAGIC_V1, version), foreign);
            assert_eq!(active(HELLO_MAGIC_V1, version), foreign);
        }
    }

    #[test]
    fn foreign_hello_after_the_request() -> Result<(), WireError> {
        for version in [1u32, 2, 3, 4, 5] {
            let mut bytes = [0; ACCEPTOR_LEN + 56];
            bytes[..ACCEPTOR_LEN].copy_from_slice(&request().build()?);
            bytes[ACCEPTOR_LEN..][..4].copy_from_slice(&LNET_MAGIC.to_be_bytes());
            bytes[ACCEPTOR_LEN + 4..][..4].copy_from_slice(&version.to_be_bytes());
            let mut reader = HelloReader::passive();
            let mut left = bytes.as_slice();
            feed(&mut reader, &mut left, 100)?;
            assert_eq!(
                feed(&mut reader, &mut left, 100),
                Ok(Progress::ForeignVersion {
                    magic: LNET_MAGIC,
                    version
                })
            );
            assert_eq!(left.len(), 56 - OPENING_LEN);
        }
        Ok(())
    }

    #[test]
    fn foreign_acceptors() {
        for version in [0, 2, 0x0100_0000, u32::MAX] {
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
            let mut reader = HelloReader::passive();
            assert_eq!(reader.filled(3), Ok(Progress::More));
            assert_eq!(reader.want().len(), OPENING_LEN - 3);
            assert_eq!(reader.filled(n), Err(WireError::Truncated));
            assert!(reader.want().is_empty());
        }
    }
}
