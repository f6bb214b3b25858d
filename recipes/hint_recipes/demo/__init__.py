"""Does training on Hessians pay? The comparison of `hint demo`."""
