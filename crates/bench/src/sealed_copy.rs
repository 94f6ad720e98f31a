//! The limit of every encrypted tunnel between two hosts: the copy-only forwarder cut in two as in
//! [`crate::udp_copy`], with each datagram sealed by AES-256-GCM before it is sent and opened when it
//! has come. Nothing else that a tunnel needs: no look-up, no replay window, no headers written anew,
//! no agreement on keys. Its key is fixed and known to everybody, which is right for a benchmark only.
//!
//! A datagram is its number (8 bytes, little-endian, which is the nonce), the sealed text and the tag.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    net::UdpSocket,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::{
    bed::Bed,
    copy::MOST,
    system::{BenchError, Layout, System, Tunnel},
    udp_copy::{BATCH, CopyOverUdp, PIECE, Sockets, halves, pass},
};

/// The copy-only forwarder in two halves that encrypt.
pub(crate) struct SealedCopy;

impl System for SealedCopy {
    fn name(&self) -> &str {
        "copy over udp, sealed"
    }

    fn available(&self) -> Result<(), String> {
        Ok(())
    }

    fn suits(&self, layout: Layout) -> bool {
        CopyOverUdp.suits(layout)
    }

    fn up(&self, bed: &Bed, layout: Layout) -> Result<Tunnel, BenchError> {
        halves(bed, layout, |end| {
            (
                // All ends have one key; those that send to each other halve the numbers.
                move |device: File, sockets: Sockets| send(device, sockets, end << 63),
                receive as fn(&UdpSocket, File),
            )
        })
    }
}

const NUMBER: usize = 8;
const TAG: usize = 16;
/// Bytes of a full datagram: what a link with MTU 1500 takes, less 8.
const SEALED: usize = NUMBER + PIECE + TAG;
/// Full datagrams of the longest super-packet, the last perhaps not full.
const PIECES: usize = MOST.div_ceil(PIECE);

fn key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes make a key"))
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Reads a super-packet to where its pieces are sealed and sent: this program copies nothing.
/// A datagram that is not full ends a super-packet.
fn send(mut device: File, sockets: Sockets, mut number: u64) {
    let key = key();
    let mut buffer = vec![0; PIECES * SEALED];
    loop {
        let mut places: Vec<IoSliceMut<'_>> = buffer
            .chunks_exact_mut(SEALED)
            .map(|piece| IoSliceMut::new(&mut piece[NUMBER..NUMBER + PIECE]))
            .collect();
        let Ok(mut length) = device.read_vectored(&mut places) else { return };
        let Some(socket) = sockets.towards(&buffer[NUMBER..NUMBER + length.min(PIECE)]) else {
            continue;
        };
        length += usize::from(length.is_multiple_of(PIECE));
        let end = length + length.div_ceil(PIECE) * (NUMBER + TAG);
        for piece in buffer[..end].chunks_mut(SEALED) {
            let (head, text) = piece.split_at_mut(NUMBER);
            head.copy_from_slice(&number.to_le_bytes());
            let (text, tag) = text.split_at_mut(text.len() - TAG);
            let sealed = key.seal_in_place_separate_tag(nonce(number), Aad::empty(), text);
            tag.copy_from_slice(sealed.expect("a datagram is far below the limits").as_ref());
            number += 1;
        }
        for part in buffer[..end].chunks(SEALED * BATCH) {
            let _ = pass(socket, part, SEALED);
        }
    }
}

/// Opens a super-packet's pieces where they came and writes them from there.
fn receive(socket: &UdpSocket, mut device: File) {
    let key = key();
    let mut buffer = vec![0; 3 * PIECES * SEALED];
    let mut length = 0;
    loop {
        match socket.recv(&mut buffer[length..]) {
            Ok(more) => length += more,
            // The other half was not there yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(_) => return,
        }
        if length.is_multiple_of(SEALED) && length <= PIECES * SEALED {
            continue;
        }
        let pieces: Option<Vec<IoSlice<'_>>> =
            buffer[..length].chunks_mut(SEALED).map(|piece| open(&key, piece)).collect();
        if let Some(pieces) = pieces {
            let _ = device.write_vectored(&pieces);
        }
        length = 0;
    }
}

fn open<'a>(key: &LessSafeKey, piece: &'a mut [u8]) -> Option<IoSlice<'a>> {
    let (number, sealed) = piece.split_first_chunk_mut::<NUMBER>()?;
    let number = u64::from_le_bytes(*number);
    key.open_in_place(nonce(number), Aad::empty(), sealed).ok().map(|text| IoSlice::new(text))
}
