//! Answers of EC2: pages of XML, read until there are no more.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::form::Form;
use super::trouble::{Kind, Trouble};

/// Most pages of one question: 50 of 500 rules are 25,000, more than chunks of groups can have.
const PAGES_MAX: usize = 50;

/// A list in an answer.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Set<T> {
    #[serde(default = "Vec::new", rename = "item")]
    pub(super) items: Vec<T>,
}

/// One page of an answer.
pub(super) trait Page: DeserializeOwned {
    /// What it lists.
    type Item;

    /// What it lists, and where it goes on.
    fn into_parts(self) -> (Vec<Self::Item>, Option<String>);
}

/// Declares a page by the name of its list.
macro_rules! page {
    ($name:ident, $list:literal, $item:ty) => {
        #[derive(serde::Deserialize)]
        struct $name {
            #[serde(rename = $list, default)]
            list: $crate::aws::pages::Set<$item>,
            #[serde(rename = "nextToken", default)]
            next_token: Option<String>,
        }

        impl $crate::aws::pages::Page for $name {
            type Item = $item;

            fn into_parts(self) -> (Vec<Self::Item>, Option<String>) {
                (self.list.items, self.next_token)
            }
        }
    };
}
pub(super) use page;

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

/// A list as the CLI's JSON has it.
impl<T: Serialize> Serialize for Set<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.items.serialize(serializer)
    }
}

/// All that EC2 answers to a question.
pub(super) async fn all<P: Page>(client: &mut Client, form: Form) -> Result<Vec<P::Item>, Trouble> {
    let mut items = Vec::new();
    let mut token: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let page = match &token {
            None => client.call(&form).await?,
            Some(token) => client.call(&form.clone().with("NextToken", token)).await?,
        };
        let (more, next) = read::<P>(form.action(), &page)?.into_parts();
        items.extend(more);
        token = next.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(items);
        }
    }
    Err(Trouble::new(Kind::Refused, format!("{} has more than {PAGES_MAX} pages", form.action())))
}

/// A page of XML. An answer that cannot be read is not half believed.
fn read<P: Page>(action: &str, body: &[u8]) -> Result<P, Trouble> {
    let refused = |why: String| Trouble::new(Kind::Refused, format!("the answer to {action} cannot be read: {why}"));
    let text = std::str::from_utf8(body).map_err(|_| refused("it is not UTF-8".to_owned()))?;
    if !text.contains(&format!("<{action}Response")) {
        return Err(refused(format!("it is no {action}Response")));
    }
    // The crate names elements and kinds of mistakes.
    quick_xml::de::from_str(text).map_err(|error| refused(error.to_string().chars().take(200).collect()))
}
