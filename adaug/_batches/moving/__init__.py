"""What moves the entries of a batch: maps and their strides, objects of all images, colours, subclasses of Tensor."""
