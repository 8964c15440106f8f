//! The five kinds of group `ostler.dev/v1alpha1`, as they travel.
