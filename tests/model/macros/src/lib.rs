// SPDX-License-Identifier: GPL-2.0

//! Attributes of the kernel's own macros, as far as they mean anything in user space.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// Makes nothing of a suite that only the kernel runs.
#[proc_macro_attribute]
pub fn kunit_tests(_: TokenStream, _: TokenStream) -> TokenStream {
    TokenStream::new()
}

/// Takes the `#[pin]`s off a struct's fields: here nothing has to stay at its place.
#[proc_macro_attribute]
pub fn pin_data(_: TokenStream, item: TokenStream) -> TokenStream {
    without_pins(item)
}

fn without_pins(tokens: TokenStream) -> TokenStream {
    let mut out = TokenStream::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let hash = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '#');
        if hash && tokens.next_if(is_pin).is_some() {
            continue;
        }
        out.extend([match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                Group::new(Delimiter::Brace, without_pins(group.stream())).into()
            }
            other => other,
        }]);
    }
    out
}

fn is_pin(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group)
        if group.delimiter() == Delimiter::Bracket && group.stream().to_string() == "pin")
}
