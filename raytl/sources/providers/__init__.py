"""Where source models come from: one module per provider, named as in the URI, imported when first asked for."""
