//! Loans of keys. A device that comes with nothing is given the key of its thing as it is then, when nobody is there
//! who could ask for it. So the owner allows it beforehand, to one service, for one thing: that service is given a
//! secret that is good for nothing else.

use subtle::ConstantTimeEq;

use crate::caller::Caller;
use crate::identity::{Secret, ThingId};
use crate::policies::Action;
use crate::refusal::Refusal;

use super::Things;

impl Things {
    /// Lends the key of a thing: who shows what this returns is told its key, whatever that is then. That is for who
    /// may see the key. It ends with the next loan, with [`Things::end_loan`], and when the thing gets another owner.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; [`Refusal::Denied`] if the caller may see the thing and not its key.
    pub async fn lend_key(&self, caller: &Caller, id: ThingId) -> Result<Secret, Refusal> {
        let loan = Secret::generate();
        let hash = self.keys.hash_loan(&loan);
        self.set_loan(caller, id, Some(hash)).await?;
        Ok(loan)
    }

    /// Lends the key of a thing no longer. That it is not lent is fine.
    ///
    /// # Errors
    /// As of [`Things::lend_key`].
    pub async fn end_loan(&self, caller: &Caller, id: ThingId) -> Result<(), Refusal> {
        self.set_loan(caller, id, None).await
    }

    async fn set_loan(
        &self,
        caller: &Caller,
        id: ThingId,
        loan: Option<crate::identity::KeyHash>,
    ) -> Result<(), Refusal> {
        let thing = self.thing_for(caller, id, Action::ClientList).await?;
        if !caller.admin && thing.owner != caller.user {
            return Err(Refusal::Denied);
        }
        // Somebody else's meanwhile: then it is not the caller's to lend.
        match self.stores.things.lend_key(id, thing.owner, loan).await? {
            true => Ok(()),
            false => Err(Refusal::NotFound("thing")),
        }
    }

    /// The key of an enabled thing, for who shows what [`Things::lend_key`] returned.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for another loan, a thing that is not there or disabled, and a key that is not kept.
    pub async fn lent_key(&self, id: ThingId, loan: &Secret) -> Result<Secret, Refusal> {
        let offered = self.keys.hash_loan(loan);
        let lent = self.stores.things.lent_key(id).await?;
        let sealed = match lent {
            Some((kept, sealed)) if kept.as_bytes().ct_eq(offered.as_bytes()).into() => sealed,
            _ => None,
        };
        let key = sealed.and_then(|sealed| self.keys.show(id, &sealed));
        key.ok_or(Refusal::NotFound("key that is lent so"))
    }
}
