"""What a user, a disk or a machine may do to adaug: a file for each family, whose function of the same name makes attempts."""
