"""Where frames come from: pictures, video files, cameras, streams, pipes, a synthetic scene."""
