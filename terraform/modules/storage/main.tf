resource "aws_dynamodb_table" "users" {
  #checkov:skip=CKV_AWS_119:encrypted with the key that AWS manages in this account; for a key of our own the pods' role would need KMS actions as well
  name         = "${var.name}-users"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "id"

  attribute {
    name = "id"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  # The key that AWS manages for DynamoDB in this account: its use is in
  # CloudTrail, it costs nothing a month, and its key policy admits whoever may
  # use the table, so that the pods' role needs no KMS action.
  server_side_encryption {
    enabled = true
  }

  deletion_protection_enabled = var.deletion_protection

  tags = { Name = "${var.name}-users" }
}

# Bucket names are one space for all of AWS: the provider adds a random suffix.
resource "aws_s3_bucket" "avatars" {
  #checkov:skip=CKV_AWS_18:the service logs each request; who else calls S3 is for the account's CloudTrail
  #checkov:skip=CKV_AWS_144:one region is the promise; the versions are what a mistake is undone with
  #checkov:skip=CKV_AWS_145:encrypted with the key of S3; for a KMS key the pods' role would need KMS actions, and each image a call to KMS
  #checkov:skip=CKV2_AWS_62:nothing waits for an event of this bucket
  bucket_prefix = "${var.name}-avatars-"
  force_destroy = !var.deletion_protection

  tags = { Name = "${var.name}-avatars" }
}

resource "aws_s3_bucket_ownership_controls" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "DenyPlainHTTP"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.avatars.arn, "${aws_s3_bucket.avatars.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
      {
        Sid       = "DenyOldTLS"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.avatars.arn, "${aws_s3_bucket.avatars.arn}/*"]
        Condition = { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
      },
    ]
  })

  # S3 refuses two changes of a bucket's access at once.
  depends_on = [aws_s3_bucket_public_access_block.avatars]
}

resource "aws_s3_bucket_server_side_encryption_configuration" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# An avatar is never overwritten, but it is deleted when another takes its place:
# the versions are what a mistake is undone with.
resource "aws_s3_bucket_versioning" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "avatars" {
  bucket = aws_s3_bucket.avatars.id

  rule {
    id     = "expire-old-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_days
    }

    # The marker that a deletion leaves goes once it is all that is left.
    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "abort-broken-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  depends_on = [aws_s3_bucket_versioning.avatars]
}
