//! Does a condition hold over the resources as they are?

use super::resources::{Resources, enough};
use alloc::vec::Vec;
use model::resource::Value;
use model::rules::{Expr, Operand, Several};

/// The parser bounds the depth of what is evaluated here.
pub(super) fn holds(expr: &Expr, resources: &Resources) -> bool {
    match expr {
        Expr::Not(it) => !holds(it, resources),
        Expr::And(a, b) => holds(a, resources) && holds(b, resources),
        Expr::Or(a, b) => holds(a, resources) || holds(b, resources),
        Expr::Is { left, equal, right } => {
            let (several, left) = side(left, resources);
            let (several_right, right) = side(right, resources);
            let one = |l: &Value| enough(several_right, right.iter().map(|r| (l == r) == *equal));
            enough(several, left.iter().map(one))
        }
    }
}

fn side(operand: &Operand, resources: &Resources) -> (Option<Several>, Vec<Value>) {
    match operand {
        Operand::Value(value) => (None, alloc::vec![value.clone()]),
        Operand::Resource(name) => {
            (name.several(), resources.matching(name).into_iter().map(|(_, value)| value).collect())
        }
    }
}
