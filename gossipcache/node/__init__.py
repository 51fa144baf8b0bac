"""A node: the services joined over one `Env`, and the verbs that use them."""
