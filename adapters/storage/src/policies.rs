//! Policies in the database: those on groups of users, and those on channels.

use async_trait::async_trait;
use rollcall_domain::entity::Update;
use rollcall_domain::event::Event;
use rollcall_domain::groups::{Policy, PolicyFilter, PolicyStore, Standing, Subject, Tell};
use rollcall_domain::identity::{ThingId, UserId};
use rollcall_domain::listing::{Listing, Page};
use rollcall_domain::policies::{Action, Actions};
use rollcall_domain::ports::StoreError;
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::database::{Database, failed};
use crate::groups::{Tables, update};
use crate::lists::{self, Member};
use crate::metadata::Kind;
use crate::rows::{flag, id, is_set, moment, status};
use crate::statement::Statement;

const COLUMNS: &str =
    "subject, is_user, object, actions, owner, vouched, created_at, updated_at, updated_by";

#[async_trait]
impl<I: Tables> PolicyStore<I> for Database {
    async fn put_policies(
        &self,
        policies: &[Policy<I>],
        tell: &Tell<Policy<I>>,
    ) -> Result<Vec<Policy<I>>, StoreError> {
        let replace = "DO UPDATE SET actions = excluded.actions,
             vouched = CASE WHEN excluded.vouched = 1 THEN 1 ELSE policies.vouched END,
             updated_at = excluded.created_at, updated_by = excluded.owner";
        insert(self, policies, replace, tell).await
    }

    async fn add_policies(
        &self,
        policies: &[Policy<I>],
        tell: &Tell<Policy<I>>,
    ) -> Result<Vec<Policy<I>>, StoreError> {
        insert(self, policies, "DO NOTHING", tell).await
    }

    async fn change_policy(
        &self,
        subject: Subject,
        object: I,
        actions: Actions,
        update: Update,
        tell: &Tell<Policy<I>>,
    ) -> Result<Option<Policy<I>>, StoreError> {
        let failed = failed("change a policy");
        let mut change = Statement::new("UPDATE ");
        change.push(I::POLICIES).push(" SET actions = ");
        change.bind(i64::from(actions.bits()));
        change
            .push(", updated_at = ")
            .bind(update.at.0.cast_signed());
        change.push(", updated_by = ").bind(update.by.as_bytes());
        between(subject, object, &mut change);
        change.push(" RETURNING ").push(COLUMNS);
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        let row = change.query().fetch_optional(&mut *transaction).await;
        let Some(row) = row.map_err(&failed)? else {
            return Ok(None);
        };
        let policy = policy(&row).map_err(&failed)?;
        let events = vec![tell(&policy)];
        self.commit(transaction, events).await.map_err(&failed)?;
        Ok(Some(policy))
    }

    async fn remove_policies(
        &self,
        pairs: &[(Subject, I)],
        tell: &Tell<Policy<I>>,
    ) -> Result<Vec<Policy<I>>, StoreError> {
        let failed = failed("remove policies");
        let mut removed = Vec::new();
        let mut transaction = self.writer.begin().await.map_err(&failed)?;
        for (subject, object) in pairs {
            let mut remove = Statement::new("DELETE FROM ");
            remove.push(I::POLICIES);
            between(*subject, *object, &mut remove);
            remove.push(" RETURNING ").push(COLUMNS);
            let row = remove.query().fetch_optional(&mut *transaction).await;
            if let Some(row) = row.map_err(&failed)? {
                removed.push(policy(&row).map_err(&failed)?);
            }
        }
        let members: Vec<Member> = removed.iter().filter_map(member).collect();
        if !members.is_empty() {
            lists::leave(&mut transaction, self.span, I::MEMBERS, members)
                .await
                .map_err(&failed)?;
        }
        let events = removed.iter().map(tell).collect();
        self.commit(transaction, events).await.map_err(&failed)?;
        Ok(removed)
    }

    async fn policy(&self, subject: Subject, object: I) -> Result<Option<Policy<I>>, StoreError> {
        let failed = failed("read a policy");
        let mut read = Statement::new(format!("SELECT {COLUMNS} FROM {}", I::POLICIES));
        between(subject, object, &mut read);
        let row = read.query().fetch_optional(&self.readers).await;
        row.map_err(&failed)?
            .map(|row| policy(&row))
            .transpose()
            .map_err(&failed)
    }

    async fn policies(
        &self,
        filter: &PolicyFilter<I>,
        page: Page,
    ) -> Result<Listing<Policy<I>>, StoreError> {
        let failed = failed("list policies");
        let order = "created_at, subject, object";
        let select = format!("SELECT {COLUMNS}");
        let rows = self.page(&select, which(filter), order, page).await;
        let Listing { items, total } = rows.map_err(&failed)?;
        let policies = items.iter().map(policy).collect::<Result<_, _>>();
        Ok(Listing {
            items: policies.map_err(&failed)?,
            total,
        })
    }

    async fn standing(&self, subject: Subject, object: I) -> Result<Option<Standing>, StoreError> {
        let failed = failed("read what somebody may do on a group");
        let mut read = Statement::new(format!(
            "SELECT groups.owner, groups.enabled, COALESCE(policies.actions, 0)
             FROM {} AS groups LEFT JOIN {} AS policies ON policies.object = groups.id",
            I::GROUPS,
            I::POLICIES
        ));
        read.push(" AND policies.subject = ")
            .bind(subject.as_bytes());
        read.push(" AND policies.is_user = ")
            .bind(flag(subject.is_user()));
        read.push(" WHERE groups.id = ").bind(object.as_bytes());
        let standing = |row: AnyRow| {
            Ok(Standing {
                owner: UserId::from_bytes(id(&row, 0)?),
                status: status(&row, 1)?,
                actions: actions(&row, 2)?,
            })
        };
        let row = read.query().fetch_optional(&self.readers).await;
        row.map_err(&failed)?
            .map(standing)
            .transpose()
            .map_err(&failed)
    }

    async fn reaches(
        &self,
        user: UserId,
        action: Action,
        member: Subject,
    ) -> Result<bool, StoreError> {
        let mut read = Statement::new(format!(
            "SELECT 1 FROM {policies} AS theirs
             JOIN {policies} AS own ON own.object = theirs.object
             JOIN {groups} AS groups ON groups.id = own.object
             WHERE groups.enabled = 1 AND theirs.vouched = 1 AND own.is_user = 1",
            policies = I::POLICIES,
            groups = I::GROUPS,
        ));
        read.push(" AND own.subject = ").bind(user.as_bytes());
        let allowed_by = action.allowed_by().bits();
        read.push(" AND (own.actions & ")
            .bind(i64::from(allowed_by))
            .push(") <> 0");
        read.push(" AND theirs.subject = ").bind(member.as_bytes());
        read.push(" AND theirs.is_user = ")
            .bind(flag(member.is_user()))
            .push(" LIMIT 1");
        let row = read.query().fetch_optional(&self.readers).await;
        row.map(|row| row.is_some())
            .map_err(failed("read what somebody may do to another"))
    }

    async fn record(&self, events: Vec<Event>) {
        self.announce(events).await;
    }
}

/// Returns what is as it was to be: rows that `conflict` leaves alone are not among it.
async fn insert<I: Tables>(
    database: &Database,
    policies: &[Policy<I>],
    conflict: &str,
    tell: &Tell<Policy<I>>,
) -> Result<Vec<Policy<I>>, StoreError> {
    let failed = failed("keep policies");
    let insert = format!(
        "INSERT INTO {policies} AS policies
         (subject, is_user, object, actions, owner, vouched, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (subject, is_user, object) {conflict} RETURNING {COLUMNS}",
        policies = I::POLICIES
    );
    let mut kept = Vec::with_capacity(policies.len());
    let mut transaction = database.writer.begin().await.map_err(&failed)?;
    for it in policies {
        let row = Statement::new(insert.as_str())
            .query()
            .bind(it.subject.as_bytes().as_slice())
            .bind(flag(it.subject.is_user()))
            .bind(it.object.as_bytes().as_slice())
            .bind(i64::from(it.actions.bits()))
            .bind(it.owner.as_bytes().as_slice())
            .bind(flag(it.vouched))
            .bind(it.created_at.0.cast_signed())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&failed)?;
        if let Some(row) = row {
            kept.push(policy(&row).map_err(&failed)?);
        }
    }
    let members: Vec<(Member, bool)> = kept
        .iter()
        .filter_map(|policy| Some((member(policy)?, policy.update.is_some())))
        .collect();
    if !members.is_empty() {
        lists::join(&mut transaction, database.span, I::MEMBERS, members)
            .await
            .map_err(&failed)?;
    }
    let events = kept.iter().map(tell).collect();
    let committed = database.commit(transaction, events).await;
    committed.map_err(&failed)?;
    Ok(kept)
}

/// Whoever the policy makes a member of the group: on channels, users are none.
fn member<I: Tables>(policy: &Policy<I>) -> Option<Member> {
    let is_member = policy.subject.is_user() == (I::MEMBERS == Kind::User);
    is_member.then(|| Member {
        id: *policy.subject.as_bytes(),
        of: *policy.object.as_bytes(),
        vouched: policy.vouched,
    })
}

fn between<I: Tables>(subject: Subject, object: I, statement: &mut Statement) {
    statement
        .push(" WHERE subject = ")
        .bind(subject.as_bytes())
        .push(" AND is_user = ")
        .bind(flag(subject.is_user()))
        .push(" AND object = ")
        .bind(object.as_bytes());
}

fn which<I: Tables>(filter: &PolicyFilter<I>) -> Statement {
    let mut which = Statement::new(format!(" FROM {} WHERE 1 = 1", I::POLICIES));
    if let Some(owner) = filter.owner {
        which.push(" AND owner = ").bind(owner.as_bytes());
    }
    if let Some(subject) = filter.subject {
        which.push(" AND subject = ").bind(subject.as_bytes());
        which.push(" AND is_user = ").bind(flag(subject.is_user()));
    }
    if let Some(object) = filter.object {
        which.push(" AND object = ").bind(object.as_bytes());
    }
    if let Some(action) = filter.action {
        let allowed_by = action.allowed_by().bits();
        which.push(" AND (actions & ").bind(i64::from(allowed_by));
        which.push(") <> 0");
    }
    which
}

fn actions(row: &AnyRow, column: usize) -> Result<Actions, sqlx::Error> {
    let bits: i64 = row.try_get(column)?;
    let bits = u16::try_from(bits).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Actions::from_bits(bits))
}

fn policy<I: Tables>(row: &AnyRow) -> Result<Policy<I>, sqlx::Error> {
    let subject = id(row, 0)?;
    Ok(Policy {
        subject: match is_set(row, 1)? {
            true => Subject::User(UserId::from_bytes(subject)),
            false => Subject::Thing(ThingId::from_bytes(subject)),
        },
        object: I::from_bytes(id(row, 2)?),
        actions: actions(row, 3)?,
        owner: UserId::from_bytes(id(row, 4)?),
        vouched: is_set(row, 5)?,
        created_at: moment(row, 6)?,
        update: update(row, 7)?,
    })
}
