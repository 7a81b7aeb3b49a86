"""The user's mini-batch: how it is read, what each entry is, and how a view moves it."""
