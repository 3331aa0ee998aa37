//! What calls of all services have in common: words and ids, metadata, pages; and groups, since a channel is one.

use std::fmt::Display;
use std::str::FromStr;

use rollcall_domain::entity::{Metadata, Update};
use rollcall_domain::groups::{Details, Group, GroupKey, GroupQuery};
use rollcall_domain::listing::Page;
use rollcall_domain::refusal::Refusal;
use tonic::Status;

use crate::status::refusal;
use crate::users_api as api;

/// Something else than one of its words, or an id that is none.
pub(crate) fn parse<T>(field: &'static str, text: &str) -> Result<T, Status>
where
    T: FromStr<Err: Display>,
{
    let wrong = |error: T::Err| refusal(Refusal::invalid(field, error.to_string()));
    text.parse().map_err(wrong)
}

pub(crate) fn parse_all<T>(field: &'static str, texts: &[String]) -> Result<Vec<T>, Status>
where
    T: FromStr<Err: Display>,
{
    texts.iter().map(|text| parse(field, text)).collect()
}

/// Empty text is none.
pub(crate) fn given<T>(field: &'static str, text: &str) -> Result<Option<T>, Status>
where
    T: FromStr<Err: Display>,
{
    match text {
        "" => Ok(None),
        text => parse(field, text).map(Some),
    }
}

/// A word, or what is meant by none.
pub(crate) fn chosen<T>(field: &'static str, text: &str) -> Result<T, Status>
where
    T: FromStr<Err: Display> + Default,
{
    Ok(given(field, text)?.unwrap_or_default())
}

pub(crate) fn optional<T>(field: &'static str, text: Option<&str>) -> Result<Option<T>, Status>
where
    T: FromStr<Err: Display>,
{
    text.map(|text| parse(field, text)).transpose()
}

/// Metadata, which goes as the text of a JSON object; none is an empty one.
pub(crate) fn metadata(text: &str) -> Result<Metadata, Status> {
    if text.is_empty() {
        return Ok(Metadata::new());
    }
    let wrong = |_| refusal(Refusal::invalid("metadata", "must be a JSON object"));
    serde_json::from_str(text).map_err(wrong)
}

/// What the metadata must contain, if it must contain anything.
pub(crate) fn wanted(text: &str) -> Result<Option<Metadata>, Status> {
    Ok(Some(metadata(text)?).filter(|wanted| !wanted.is_empty()))
}

pub(crate) fn json(metadata: Metadata) -> String {
    serde_json::Value::Object(metadata).to_string()
}

/// A limit of 0 is none given.
pub(crate) fn page(page: Option<api::Page>) -> Page {
    let usual = Page::default();
    let api::Page { offset, limit } = page.unwrap_or_default();
    Page {
        offset,
        limit: if limit == 0 { usual.limit } else { limit },
    }
}

/// When something was changed last, and by whom.
pub(crate) fn updated(update: Option<Update>) -> (Option<u64>, Option<String>) {
    update
        .map(|Update { at, by }| (at.0, by.to_string()))
        .unzip()
}

pub(crate) fn query<I>(filter: Option<api::GroupFilter>) -> Result<GroupQuery<I>, Status>
where
    I: GroupKey + FromStr<Err: Display>,
{
    let filter = filter.unwrap_or_default();
    Ok(GroupQuery {
        status: chosen("status", &filter.status)?,
        name: filter.name,
        owner: given("owner", filter.owner.as_deref().unwrap_or_default())?,
        metadata: wanted(&filter.metadata)?,
        parent: given("parent", filter.parent.as_deref().unwrap_or_default())?,
        visibility: chosen("visibility", &filter.visibility)?,
    })
}

/// Which group is to be changed, and how.
pub(crate) fn change<I>(asked: api::UpdateGroupRequest) -> Result<(I, Details), Status>
where
    I: FromStr<Err: Display>,
{
    let details = Details {
        name: asked.name,
        description: asked.description,
        metadata: asked.metadata.as_deref().map(metadata).transpose()?,
    };
    Ok((parse("id", &asked.id)?, details))
}

pub(crate) fn group<I: GroupKey>(group: Group<I>) -> api::Group {
    let (updated_at, updated_by) = updated(group.update);
    api::Group {
        id: group.id.to_string(),
        owner: group.owner.to_string(),
        parent: group.parent().map(|id| id.to_string()),
        path: group.path().iter().map(ToString::to_string).collect(),
        name: group.name,
        description: group.description,
        metadata: json(group.metadata),
        status: group.status.as_str().to_owned(),
        created_at: group.created_at.0,
        updated_at,
        updated_by,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn metadata_is_an_object_or_nothing() {
        assert!(metadata("").expect("none").is_empty());
        assert_eq!(metadata("{\"a\":1}").expect("an object").len(), 1);
        for wrong in ["[]", "1", "{", "null"] {
            assert_eq!(
                metadata(wrong).expect_err(wrong).code(),
                Code::InvalidArgument
            );
        }
    }
}
