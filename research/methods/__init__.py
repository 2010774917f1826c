"""Methods of training, such as regularisers; a file each, found by its name. Switched off, they are not there."""
