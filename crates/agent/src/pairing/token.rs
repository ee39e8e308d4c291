//! The join token: one word without confusing letters, with a checksum that tells a slip of the fingers from a wrong
//! token.
//!
//! 35 bytes as 56 characters: version 1, fingerprint of the authority 16, secret 16, checksum 2.

use crate::identity::random;
use std::fmt;
use std::str::FromStr;

const VERSION: u8 = 1;
const BYTES: usize = 35;
/// Crockford's: no i, l, o, u; what is read as one of them is understood.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A token. Never printed by `Debug`, only by `Display`, on purpose.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    fingerprint: [u8; 16],
    secret: [u8; 16],
}

/// The text is not a token. Nothing was asked of anybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Length or letters.
    #[error("a token is one word of 56 letters and digits, this one has {0}")]
    Length(usize),
    /// Not in the alphabet.
    #[error("a token has no '{0}' in it")]
    Letter(char),
    /// The checksum does not fit: mistyped or cut.
    #[error("there is a typing error in it (its checksum does not fit)")]
    Typo,
    /// From a newer program.
    #[error("it was made by a newer version of stead")]
    Version,
}

impl Token {
    /// A new one for the cluster with this authority (DER).
    #[must_use]
    pub fn create(ca_der: &[u8]) -> Self {
        Self { fingerprint: fingerprint(ca_der), secret: random() }
    }

    /// Is this the authority the token was made for?
    #[must_use]
    pub fn is_of(&self, ca_der: &[u8]) -> bool {
        self.fingerprint == fingerprint(ca_der)
    }

    /// What a node keeps to recognise the token: says nothing about the secret.
    pub(super) fn id(&self) -> [u8; 8] {
        let whole = blake3::derive_key("stead v1 join token: id", &self.secret);
        std::array::from_fn(|i| whole[i])
    }

    /// The key both sides prove.
    pub(super) fn key(&self) -> [u8; 32] {
        blake3::derive_key("stead v1 join token: proof", &self.secret)
    }
}

fn fingerprint(ca_der: &[u8]) -> [u8; 16] {
    let whole = blake3::derive_key("stead v1 authority fingerprint", ca_der);
    std::array::from_fn(|i| whole[i])
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let whole = blake3::derive_key("stead v1 join token: checksum", bytes);
    [whole[0], whole[1]]
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend(self.fingerprint);
        bytes.extend(self.secret);
        bytes.extend(checksum(&bytes));
        // 35 bytes are 7 groups of 5 bytes, 8 letters each.
        for group in bytes.chunks_exact(5) {
            let number = group.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            for i in (0..8).rev() {
                f.write_str(char::from(LETTERS[(number >> (5 * i) & 31) as usize]).encode_utf8(&mut [0; 4]))?;
            }
        }
        Ok(())
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut values = Vec::with_capacity(56);
        for letter in text.chars().filter(|letter| !letter.is_whitespace() && *letter != '-').take(200) {
            let plain = match letter.to_ascii_lowercase() {
                'o' => '0',
                'i' | 'l' => '1',
                other => other,
            };
            let value =
                LETTERS.iter().position(|known| char::from(*known) == plain).ok_or(TokenError::Letter(letter))?;
            values.push(value as u64);
        }
        if values.len() != 56 {
            return Err(TokenError::Length(values.len()));
        }
        let mut bytes = Vec::with_capacity(BYTES);
        for group in values.chunks_exact(8) {
            let number = group.iter().fold(0_u64, |number, value| number << 5 | value);
            bytes.extend(&number.to_be_bytes()[3..]);
        }
        let (body, sum) = bytes.split_at(BYTES - 2);
        if checksum(body) != *sum {
            return Err(TokenError::Typo);
        }
        if body[0] != VERSION {
            return Err(TokenError::Version);
        }
        Ok(Self { fingerprint: std::array::from_fn(|i| body[1 + i]), secret: std::array::from_fn(|i| body[17 + i]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_copying_and_any_single_slip_is_noticed() {
        let token = Token::create(b"authority");
        let text = token.to_string();
        assert_eq!(text.len(), 56);
        assert!(token.is_of(b"authority") && !token.is_of(b"another"));
        assert_eq!(text.parse::<Token>().unwrap(), token);
        assert_eq!(format!("  {}-{} \n", &text[..10].to_uppercase(), &text[10..]).parse::<Token>().unwrap(), token);
        for i in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[i] = if wrong[i] == b'x' { b'y' } else { b'x' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert!(matches!(wrong.parse::<Token>(), Err(TokenError::Typo)), "letter {i}");
        }
        assert_eq!(text[..50].parse::<Token>(), Err(TokenError::Length(50)));
        assert_eq!("é".parse::<Token>(), Err(TokenError::Letter('é')));
        assert!(!format!("{token:?}").contains(&text[20..40]));
    }
}
