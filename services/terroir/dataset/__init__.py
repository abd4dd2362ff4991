"""The dataset service: pictures of a style, their quality findings and captions, frozen into immutable versions."""
