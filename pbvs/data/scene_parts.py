"""What stands in a made scene: ground, water, fields, roads, buildings, cars and trees, each painted by one function."""
